"""What a study asks of a run: numbers made of its columns, and how people write them."""

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import HOURS_PER_DAY, ConfigError
from perfusio_jax._core.hints import did_you_mean

from .experiment import Experiment

Kind = Literal["value", "amount", "integral", "min", "max", "mean"]
KINDS: tuple[Kind, ...] = ("value", "amount", "integral", "min", "max", "mean")
_AT_A_SAMPLE = ("value", "amount")
_VOLUME = "volume_L"
_WORDS = {"last": "value", "final": "value", "smallest": "min", "largest": "max"}
_NEAR_H = 1e-6


class Output(NamedTuple):
    """One number of a run; static."""

    kind: Kind
    """`value` at a sample; `amount`, the value times the volume there; `integral` over the run, by
    the trapezium rule over the samples [unit h]; `min`, `max` over the samples; `mean` over time,
    the integral over the length."""
    column: int
    """Which column."""
    row: int
    """Which sample, of a value; -1 for the last."""
    name: str
    """How people call it."""
    unit: str
    """Its unit."""
    volume: int = -1
    """Column of the volume, of an amount."""


def read_output(experiment: Experiment, text: str) -> Output:
    """An output as people write it.

    Args:
        experiment: The run.
        text: `Titer` or `last Titer` (at the end), `Titer at 7 d`, `Titer at 168 h`,
            `integral of VCD`, `min Via`, `max Amm`, `mean VCV`, `amount of P` (in the vessel at
            the end, where the volume changes), `amount of P at 7 d`.

    Raises:
        ConfigError: If it is none of these, there is no such quantity, or no sample at that time.

    Example:
        >>> from perfusio_jax.simulator import virtual_reactor
        >>> from perfusio_jax.study import cho_experiment
        >>> run = cho_experiment(virtual_reactor(), 24.0 * np.arange(15))
        >>> read_output(run, "Titer at 7 d")
        Output(kind='value', column=10, row=7, name='Titer at 7 d', unit='mg/L', volume=-1)
    """
    said = " ".join(text.split())
    match = re.fullmatch(
        r"(?:(?P<kind>[A-Za-z]+) (?:of )?)?(?P<what>\S+)"
        r"(?: at (?P<when>[0-9.]+(?:e[0-9]+)?) ?(?P<unit>d|h))?",
        said,
    )
    kind = "value" if match is None or match["kind"] is None else match["kind"].lower()
    kind = _WORDS.get(kind, kind)
    if match is None or kind not in KINDS or (match["when"] and kind not in _AT_A_SAMPLE):
        raise ConfigError(
            f"{text!r} is no output; it reads like 'Titer at 14 d', 'last Titer', 'integral of "
            "VCD', 'min Via', 'max Amm', 'mean VCV' or 'amount of P'."
        )
    column = _column(experiment, match["what"])
    row = -1
    if match["when"] is not None:
        try:
            when = float(match["when"])
        except ValueError:
            raise ConfigError(f"{text!r}: {match['when']!r} is no time.") from None
        row = _row(experiment, when * (HOURS_PER_DAY if match["unit"] == "d" else 1.0), said)
    unit = experiment.unit(experiment.columns[column])
    if kind == "amount":
        if _VOLUME not in experiment.columns:
            raise ConfigError(
                f"{said!r}: the volume of this run does not change; ask for the value, "
                f"'last {match['what']}'."
            )
        whole = unit.removesuffix("/L") if unit.endswith("/L") else f"{unit} L"
        return Output("amount", column, row, said, whole, experiment.columns.index(_VOLUME))
    return Output(kind, column, row, said, f"{unit} h" if kind == "integral" else unit)  # pyright: ignore[reportArgumentType]


def read_outputs(experiment: Experiment, wanted: Iterable[str | Output]) -> tuple[Output, ...]:
    """Outputs as people write them, or as they are.

    Args:
        experiment: The run.
        wanted: Texts as `read_output` reads them, or outputs, which are taken as they are.

    Returns:
        In the order given; one that is asked for twice is there twice.

    Raises:
        ConfigError: If there is none, or one cannot be read.
    """
    found = tuple(w if isinstance(w, Output) else read_output(experiment, w) for w in wanted)
    if not found:
        raise ConfigError("no output was asked for; name one, as in 'Titer at 14 d'.")
    return found


def every_sample(experiment: Experiment, quantities: Iterable[str]) -> tuple[Output, ...]:
    """Quantities at every sample but the first, quantity by quantity.

    Args:
        experiment: The run.
        quantities: Names of columns.

    Raises:
        ConfigError: If one is no column.
    """
    hours = experiment.hours
    found = []
    for name in quantities:
        column = _column(experiment, name)
        unit = experiment.unit(name)
        found += [
            Output("value", column, row, f"{name} at {_when(hours[row])}", unit)
            for row in range(1, hours.size)
        ]
    return tuple(found)


def measure(
    outputs: Sequence[Output], values: Float[Array, "*b T+1 Q"], lengths_h: Float[Array, " T"]
) -> Float[Array, "*b O"]:
    """The outputs of runs.

    Args:
        outputs: What is asked.
        values: Columns at the samples.
        lengths_h: Lengths of the intervals [h].
    """
    found: list[tuple[int, Array]] = []
    for kind in dict.fromkeys(output.kind for output in outputs):
        own = [i for i, output in enumerate(outputs) if output.kind == kind]
        columns = np.array([outputs[i].column for i in own])
        rows = np.array([outputs[i].row for i in own])
        if kind == "value":
            part = values[..., rows, columns]
        elif kind == "amount":
            volumes = np.array([outputs[i].volume for i in own])
            part = values[..., rows, columns] * values[..., rows, volumes]
        else:
            part = _over_run(kind, values[..., columns], lengths_h)
        found += [(i, part[..., k]) for k, i in enumerate(own)] if len(own) < len(outputs) else []
        if len(own) == len(outputs):  # all of one kind: nothing to put in order
            return part
    return jnp.stack([value for _, value in sorted(found, key=lambda pair: pair[0])], axis=-1)


def _over_run(kind: str, values: Array, lengths_h: Array) -> Array:
    if kind == "min":
        return jnp.min(values, axis=-2)
    if kind == "max":
        return jnp.max(values, axis=-2)
    means = 0.5 * (values[..., 1:, :] + values[..., :-1, :])
    total = jnp.einsum("...tq,t->...q", means, lengths_h)
    return total / jnp.sum(lengths_h) if kind == "mean" else total


def _column(experiment: Experiment, name: str) -> int:
    if name not in experiment.columns:
        raise ConfigError(
            f"{name!r} is no quantity of this run{did_you_mean([name], experiment.columns)}; there "
            f"are {', '.join(experiment.columns)}."
        )
    return experiment.columns.index(name)


def _row(experiment: Experiment, hour: float, said: str) -> int:
    hours = experiment.hours
    row = int(np.argmin(np.abs(hours - hour)))
    if abs(hours[row] - hour) > _NEAR_H * max(1.0, hour):
        raise ConfigError(
            f"{said!r}: there is no sample at {hour:g} h; the nearest is at {_when(hours[row])}, "
            f"the last at {_when(hours[-1])}. Choose one, or a run with a sample there."
        )
    return row


def _when(hour: float) -> str:
    days = hour / HOURS_PER_DAY
    return f"{days:g} d" if abs(days - round(days)) < 1e-9 and days >= 1.0 else f"{hour:g} h"
