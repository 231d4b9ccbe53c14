"""What `twin.toml` says of a described culture: `process`, `[objective]`, and alarms by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from perfusio_jax._core import ConfigError
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax.process import Process, read_process
from perfusio_jax.twin.alarms.channels import CHANNELS

_NUMBER = (int, float)


def _is_number(value: Any) -> bool:
    return isinstance(value, _NUMBER) and not isinstance(value, bool)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) and v.strip() for v in value)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(_is_number(v) for v in value)


def _is_pair(value: Any) -> bool:
    return _is_numbers(value) and len(value) == 2


OBJECTIVE: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "goals": (_is_texts, "a list as ['VCD = 20', 'max Titer']"),
    "weights": (_is_numbers, "a list of numbers above 0, one for each goal"),
    "limits": (_is_texts, "a list as ['Via >= 80']"),
    "probability": (_is_number, "a number between 0 and 1"),
    "horizon_days": (
        lambda v: _is_number(v) and 0 < v <= 365,
        "a number of days above 0, up to 365",
    ),
    "controls": (_is_texts, "a list of the controls the twin decides"),
    "ranges": (
        lambda v: isinstance(v, dict) and all(_is_pair(pair) for pair in v.values()),
        "a table of [lower, upper] by control",
    ),
}
"""Keys of `[objective]`: what they must be, and what to write there."""

ALARMS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "warning": (_is_texts, "a list of limits as ['Via >= 85']"),
    "critical": (_is_texts, "a list of limits as ['Via >= 80']"),
    "lead_days": (
        lambda v: isinstance(v, int) and not isinstance(v, bool) and 1 <= v <= 365,
        "a whole number of days, 1 to 365",
    ),
    "notification_channel": (
        lambda v: bool(channels_of(v)) and set(channels_of(v)) <= set(CHANNELS),
        f"{', '.join(CHANNELS[:-1])} or {CHANNELS[-1]}, or a list of them",
    ),
    "alarm_file": (lambda v: isinstance(v, str) and bool(v.strip()), "the file alarms go to"),
}
"""Keys of `[alarms]` of a described culture."""


def process_of(table: Mapping[str, Any], base: Path) -> Process | None:
    """The culture that `[twin]` names; None for CHO perfusion as the reference API has it.

    Args:
        table: `[twin]`.
        base: Folder its paths are relative to.

    Raises:
        ConfigError: If there is no such process, or the file describes none.
    """
    named = table.get("process")
    if named is None:
        return None
    is_file = str(named).endswith(".toml")
    return read_process(base / str(named) if is_file else str(named))


def check_described(settings: Mapping[str, Any]) -> None:
    """Refuse what does not belong to the kind of culture that `[twin]` names.

    Args:
        settings: The tables of `twin.toml`.

    Raises:
        ConfigError: If a table or key is of CHO perfusion beside a process, or the reverse; if one
            that is needed lacks; or if a value is of the wrong kind.
    """
    table = settings.get("twin", {})
    if "process" not in table:
        if "objective" in settings:
            raise ConfigError(
                "[objective] is of a culture that process in [twin] names; CHO perfusion has "
                "targets in [design_space]."
            )
        for name in ("max_change", "clone_id", "mechanism", "posterior", "accept_warnings"):
            if name in table:
                raise ConfigError(
                    f"{name} in [twin] is of a culture that process in [twin] names; add process."
                )
        return
    if "design_space" in settings:
        raise ConfigError(
            "[design_space] is of CHO perfusion; of a described culture the ranges of controls "
            "stand in the process, and goals and limits in [objective]."
        )
    if "volume_L" in table:
        raise ConfigError("volume_L in [twin] is of CHO perfusion; the process says the volume.")
    if "accept_warnings" in table and "posterior" not in table:
        raise ConfigError(
            "accept_warnings in [twin] is of a posterior; posterior names its folder."
        )
    if "model" not in table:
        raise ConfigError(
            "[twin] with a process needs model, the folder of a fitted model; "
            "perfusio-jax fit RUNS --process FILE makes one."
        )
    objective = settings.get("objective", {})
    if "goals" not in objective:
        raise ConfigError(
            f"[twin] with a process needs a table [objective] with goals, {OBJECTIVE['goals'][1]}."
        )
    _check_keys(objective, OBJECTIVE, "objective")
    _check_keys(settings.get("alarms", {}), ALARMS, "alarms")
    alarms = settings.get("alarms", {})
    if "file" in channels_of(alarms.get("notification_channel")) and "alarm_file" not in alarms:
        raise ConfigError("notification_channel = 'file' in [alarms] needs alarm_file.")


def channels_of(said: Any) -> tuple[str, ...]:
    """Channels of alarms, as `notification_channel` in `[alarms]` says them: one or a list."""
    if isinstance(said, str):
        return (said,)
    return tuple(said) if _is_texts(said) else ()


def _check_keys(
    table: Mapping[str, Any], known: Mapping[str, tuple[Callable[[Any], bool], str]], where: str
) -> None:
    wrong = sorted(set(table) - set(known))
    if wrong:
        raise ConfigError(
            f"unknown keys {wrong} in [{where}]{did_you_mean(wrong, known)}; "
            f"allowed are {sorted(known)}."
        )
    for name, value in table.items():
        fits, what = known[name]
        if not fits(value):
            shown = repr(value)
            shown = shown if len(shown) <= 80 else shown[:77] + "..."
            raise ConfigError(f"{name} in [{where}] is {shown}; it must be {what}.")
