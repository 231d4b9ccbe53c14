"""From what `twin.toml` says of a described culture to what its twin is built from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfusio_jax._core import ConfigError
from perfusio_jax.bed.goal.by_name import Limit, Words, parse_limit
from perfusio_jax.config import RunConfig
from perfusio_jax.hybrid import HybridStateSpaceModel, Layout
from perfusio_jax.process import Process
from perfusio_jax.twin import AlarmNotifier, DescribedBrain, GateLimits
from perfusio_jax.twin.alarms.events import Draws
from perfusio_jax.twin.decision.cadence import Cadence
from perfusio_jax.twin.decision.described_objective import Objective, described_policy
from perfusio_jax.twin.decision.given import check_initial, limits_of_process

from .described_settings import channels_of

if TYPE_CHECKING:
    from perfusio_jax.study import PosteriorMechanisms


@dataclass(frozen=True)
class DescribedPlan:
    """A described culture as a configuration has it, checked."""

    process: Process
    """The culture."""
    objective: Objective
    """Goals, limits and what the twin decides."""
    alarms: Mapping[str, Any]
    """`[alarms]`."""
    max_change: Mapping[str, float]
    """Largest change per day by control, as far as a person tells it."""
    device_steps: Mapping[str, float]
    """Steps of the device's set-points, as far as a person tells them."""
    initial: Mapping[str, float]
    """Set-points to begin with, as far as a person tells them."""
    clone_id: str = "unknown"
    """Clone of the run."""

    @property
    def initial_controls(self) -> dict[str, float]:
        """Set-points in force until something else is known."""
        held = {c.name: c.default for c in self.process.controls if c.role != "bolus"}
        return held | dict(self.initial)

    def limits(self, run: RunConfig) -> GateLimits:
        """Limits of the gate.

        Raises:
            ConfigError: If a number is unusable.
        """
        cadence = Cadence(run.sampling_interval_hours)
        return limits_of_process(
            self.process, cadence, device_steps=self.device_steps, max_change=self.max_change
        )

    def brain(
        self,
        model: HybridStateSpaceModel,
        run: RunConfig,
        *,
        run_id: str,
        mode: Any,
        posterior: "PosteriorMechanisms | None" = None,
    ) -> DescribedBrain:
        """A fresh brain as the run starts with.

        Args:
            model: The model.
            run: `[run]`.
            run_id: Name of the run.
            mode: "frozen" or "adaptive".
            posterior: Draws of the mechanism's constants, under which it decides.

        Raises:
            ConfigError: If the objective does not fit the model.
        """
        cadence = Cadence(run.sampling_interval_hours)
        policy = described_policy(
            model, self.objective, self.limits(run), cadence=cadence, acqf_name=run.acquisition
        )
        return DescribedBrain(
            model,
            policy,
            seed=0 if run.seed is None else run.seed,
            run_id=run_id,
            clone_id=self.clone_id,
            retrain_every=run.retrain_every,
            n_paths=run.n_mc_samples,
            mode=mode,
            sample_h=cadence.interval_h,
            posterior=posterior,
        )

    def notifier(self, layout: Layout, base: Path, draws: Draws | None = None) -> AlarmNotifier:
        """Alarms by name: what `[alarms]` says, else the limits of the objective.

        Args:
            layout: What is forecast.
            base: Folder its paths are relative to.
            draws: Draws what an alarm is about, for channels that take a picture.

        Raises:
            ConfigError: If a limit says something else, or is of nothing that is forecast.
        """
        told = self.alarms
        limits = self.objective.limits
        critical = self._parsed(told.get("critical", limits), layout, "critical in [alarms]")
        warning = self._parsed(told.get("warning", ()), layout, "warning in [alarms]")
        ends = _ends(critical)
        file = told.get("alarm_file")
        return AlarmNotifier(
            {**ends, **_narrowed(ends, _ends(warning))},
            lead_days=int(told.get("lead_days", 3)),
            channels=channels_of(told.get("notification_channel", "log")),
            critical=ends,
            alarm_file=None if file is None else base / str(file),
            draws=draws,
        )

    def _parsed(self, texts: Sequence[str], layout: Layout, what: str) -> list[Limit]:
        words = Words(limit=what)
        return [parse_limit(text, self.process, layout, words) for text in texts]


def described_plan(settings: Mapping[str, Any], process: Process) -> DescribedPlan:
    """What a configuration says of a culture.

    Args:
        settings: The tables of `twin.toml`, checked by `check_described`.
        process: The culture it names.

    Raises:
        ConfigError: If a control is unknown, or a number is none.
    """
    table, told = settings["twin"], settings["objective"]
    check_initial(process, table.get("initial_controls", {}))
    ranges = {n: (float(low), float(high)) for n, (low, high) in told.get("ranges", {}).items()}
    many = {n: tuple(told[n]) for n in ("weights", "limits", "controls") if n in told}
    one = {n: told[n] for n in ("probability", "horizon_days") if n in told}
    rates = _numbers("max_change", table.get("max_change", {}), process)
    steps = _numbers("resolution", table.get("resolution", {}), process)
    return DescribedPlan(
        process=process,
        objective=Objective(goals=tuple(told["goals"]), ranges=ranges, **many, **one),
        alarms=settings.get("alarms", {}),
        max_change=rates,
        device_steps=steps,
        initial={n: float(v) for n, v in table.get("initial_controls", {}).items()},
        clone_id=str(table.get("clone_id", "unknown")),
    )


def check_model(process: Process, model: HybridStateSpaceModel, what: str) -> None:
    """Refuse a model that was not fitted to the culture as it is described now.

    Args:
        process: The culture that the configuration names.
        model: The model it names.
        what: What to call the process in a message.

    Raises:
        ConfigError: If it is of another culture, or the description changed since, with the
            differences.
    """
    fitted = model.layout.process
    if fitted is None:
        raise ConfigError(
            f"the model is of CHO perfusion as the reference API has it, and {what} is "
            f"{process.name}. Fit one with --process, or leave process out."
        )
    differs = fitted.differences(process)
    if not differs:
        return
    listed = "; ".join(differs[:6]) + (f"; and {len(differs) - 6} more" if differs[6:] else "")
    if fitted.name != process.name:
        raise ConfigError(
            f"the model is of process {fitted.name}, and {what} is {process.name}: {listed} (the "
            "model's first). Name the model of this process."
        )
    raise ConfigError(
        f"{what} is not what the model was fitted to; it was changed since: {listed} (the model's "
        "first). Fit again, or undo the change; ranges in [objective] and max_change in [twin] "
        "narrow what the twin may set without one."
    )


def _numbers(what: str, table: Mapping[str, Any], process: Process) -> dict[str, float]:
    """A table of numbers above zero by control."""
    for name, value in table.items():
        control = process.control(name)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not (0.0 < value and math.isfinite(value)):
            raise ConfigError(
                f"{what} in [twin] has {value!r} for {name}; a number above 0 {control.unit} is "
                "needed."
            )
    return {name: float(value) for name, value in table.items()}


def _ends(limits: Sequence[Limit]) -> dict[str, tuple[float | None, float | None]]:
    """Lowest and highest value by name."""
    found: dict[str, tuple[float | None, float | None]] = {}
    for name, is_upper, value in limits:
        low, high = found.get(name, (None, None))
        found[name] = (low, value) if is_upper else (value, high)
    return found


def _narrowed(
    outer: Mapping[str, tuple[float | None, float | None]],
    inner: Mapping[str, tuple[float | None, float | None]],
) -> dict[str, tuple[float | None, float | None]]:
    """The inner limits, with the outer ones on sides where there is none.

    Raises:
        ConfigError: If a warning would come after its critical alarm.
    """
    found = {}
    for name, (low, high) in inner.items():
        least, most = outer.get(name, (None, None))
        if (low is not None and least is not None and low < least) or (
            high is not None and most is not None and high > most
        ):
            raise ConfigError(
                f"warning and critical of {name} in [alarms] are inverted: the warning has to come "
                "before the critical alarm."
            )
        found[name] = (least if low is None else low, most if high is None else high)
    return found
