"""What a schedule has to keep to, as people write it."""

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from perfusio_jax._core import ConfigError
from perfusio_jax._core.text import shown_unit
from perfusio_jax.study.experiment import Experiment
from perfusio_jax.study.outputs import Output, every_sample, read_output

_SIGNS = {">=": 1.0, "<=": -1.0}


class Limit(NamedTuple):
    """One limit; static."""

    text: str
    """As it was written."""
    outputs: tuple[Output, ...]
    """What it holds for: one number of the run, or a quantity at every sample."""
    bound: float
    """The limit itself [unit of the outputs]."""
    sign: float
    """1 if the outputs are not to be below it, -1 if not above."""


def read_limit(experiment: Experiment, text: str) -> Limit:
    """A limit as people write it.

    Args:
        experiment: The run.
        text: `Via >= 80` or `min Via >= 80` (at every sample but the first), `max Amm <= 8`,
            `last X >= 5`, `Titer at 7 d >= 100`, `mean VCV <= 20`, `amount of P >= 2`.

    Raises:
        ConfigError: If it is none of these, or no number stands in it.

    Example:
        >>> from perfusio_jax.simulator import virtual_reactor
        >>> from perfusio_jax.study import cho_experiment
        >>> run = cho_experiment(virtual_reactor(), 24.0 * np.arange(4))
        >>> [output.name for output in read_limit(run, "Via >= 80").outputs]
        ['Via at 1 d', 'Via at 2 d', 'Via at 3 d']
    """
    said = " ".join(text.split())
    match = re.fullmatch(r"(?P<what>.+?) ?(?P<sign><=|>=) ?(?P<bound>\S+)", said)
    try:
        bound = float("x" if match is None else match["bound"])
    except ValueError:
        bound = np.nan
    if match is None or not np.isfinite(bound):
        raise ConfigError(
            f"limit {text!r}: it reads like 'Via >= 80', 'max Amm <= 8', 'last X >= 5' or "
            "'Titer at 7 d >= 100'."
        )
    what, sign = match["what"], _SIGNS[match["sign"]]
    if " " not in what:
        outputs = every_sample(experiment, [what])
    else:
        one = read_output(experiment, what)
        # the smallest is not below, so none is: without the corner that a smallest has
        is_path = (one.kind, sign) in (("min", 1.0), ("max", -1.0))
        name = experiment.columns[one.column]
        outputs = every_sample(experiment, [name]) if is_path else (one,)
    return Limit(said, outputs, bound, sign)


def read_limits(experiment: Experiment, wanted: Iterable[str]) -> tuple[Limit, ...]:
    """Limits as people write them.

    Raises:
        ConfigError: If one cannot be read, or two leave no room between them.
    """
    found = tuple(read_limit(experiment, text) for text in dict.fromkeys(wanted))
    room: dict[Output, tuple[float, float]] = {}
    for limit in found:
        for output in limit.outputs:
            lo, hi = room.get(output, (-np.inf, np.inf))
            lo, hi = (max(lo, limit.bound), hi) if limit.sign > 0 else (lo, min(hi, limit.bound))
            if lo > hi:
                unit = shown_unit(output.unit)
                raise ConfigError(
                    f"{output.name} cannot be at least {lo:g} and at most {hi:g} {unit}."
                )
            room[output] = (lo, hi)
    return found
