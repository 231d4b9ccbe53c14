"""What a study looks at: one run of a plant, and everything in it that may be different.

A *lever* is one number of a run: a constant of the mechanism, a set-point (over the whole run or
within one interval), what a stream brings, or what the culture starts with. Studies pull levers and
look at what the run shows; which plant is behind it they do not know.
"""

import abc
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int

from perfusio_jax._core import ConfigError, Scalar
from perfusio_jax._core.hints import did_you_mean

CONSTANT, SET_POINT, FEED, START = "constants", "set-points", "feeds", "start"
GROUPS = (CONSTANT, SET_POINT, "every set-point", FEED, START)
"""Names that stand for several levers; "every set-point" for one of each interval."""

WHOLE_RUN = -1
"""Interval of a lever that acts in all of them."""


class Lever(NamedTuple):
    """One number of a run; names and places only, so that it is static."""

    name: str
    """How people call it: `mu_max`, `temperature`, `temperature@3` (third interval),
    `medium.Glc`, `start.Xv`."""
    group: str
    """`constants`, `set-points`, `feeds` or `start`."""
    unit: str
    """Its unit; empty where nobody tells."""
    field: str
    """Constant or stream it belongs to."""
    place: int
    """Entry of the constant, the control, what the stream brings, or the state."""
    interval: int = WHOLE_RUN
    """Interval of a set-point, from 0."""


class Law(NamedTuple):
    """How uncertain one lever is."""

    is_log: bool
    """Whether its logarithm is spread, not the value itself."""
    is_normal: bool
    """Whether it is normal rather than uniform."""
    a: float
    """Middle of a normal, lower end of a uniform."""
    b: float
    """Standard deviation of a normal, width of a uniform."""


def uniform(lo: float, hi: float) -> Law:
    """Anywhere between two values.

    Args:
        lo: Lowest value [of the lever].
        hi: Highest value.

    Raises:
        ConfigError: If they are no range.
    """
    if not (np.isfinite(lo) and np.isfinite(hi) and lo < hi):
        raise ConfigError(f"{lo:g} to {hi:g} is no range; two numbers are needed, the lower first.")
    return Law(False, False, float(lo), float(hi) - float(lo))


def lognormal(value: float, log_sd: float) -> Law:
    """A factor around a value.

    Args:
        value: Value in the middle, above zero [of the lever].
        log_sd: Standard deviation of its logarithm [-].

    Raises:
        ConfigError: If the value or the deviation is not above zero.
    """
    if not (value > 0.0 and log_sd > 0.0):
        raise ConfigError(
            f"a value of {value:g} with a log standard deviation of {log_sd:g}; both are to be "
            "above zero, for a factor changes neither zero nor a sign. Give a range instead."
        )
    return Law(True, True, float(np.log(value)), float(log_sd))


def normal(value: float, sd: float) -> Law:
    """Around a value.

    Args:
        value: Value in the middle [of the lever].
        sd: Standard deviation, in the same unit.

    Raises:
        ConfigError: If the deviation is not above zero.
    """
    if not sd > 0.0:
        raise ConfigError(f"a standard deviation of {sd:g}; it is above zero.")
    return Law(False, True, float(value), float(sd))


class Course(NamedTuple):
    """What a run shows."""

    values: Float[Array, "T+1 Q"]
    """Columns at the samples; NaN from where the run failed."""
    result: Int[Array, ""]
    """Result code."""


class Assay(NamedTuple):
    """How well a column is measured; static."""

    column: str
    """Its name."""
    cv: float
    """Coefficient of variation [-]."""
    floor: float
    """Deviation at zero [unit of the column]."""
    is_viability: bool = False
    """Whether it is a share of cells that are counted, in per cent."""
    is_signed: bool = False
    """Whether it may be read below zero."""


class Experiment(eqx.Module):
    """One run; make it with `described_experiment` or `cho_experiment`."""

    start: eqx.AbstractVar[Float[Array, " n"]]
    """Concentrations and levels at the start."""
    controls: eqx.AbstractVar[Float[Array, "T M"]]
    """Set-points by interval; one row where they never change and no lever of an interval is
    needed."""
    lengths_h: eqx.AbstractVar[Float[Array, " T"]]
    """Lengths of the intervals [h]."""

    @property
    @abc.abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Names of what can be read."""

    @property
    @abc.abstractmethod
    def is_in_lanes(self) -> bool:
        """Whether `side_by_side` runs all in one loop; a derivative then takes a lane."""

    @abc.abstractmethod
    def unit(self, column: str) -> str:
        """Unit of a column."""

    @property
    @abc.abstractmethod
    def levers(self) -> tuple[Lever, ...]:
        """Everything that may be different, by group."""

    @abc.abstractmethod
    def usual_law(self, lever: Lever) -> Law | None:
        """How uncertain a lever is if nobody tells; None if nothing can be assumed."""

    @abc.abstractmethod
    def is_assumed(self, lever: Lever) -> bool:
        """Whether the usual law of a constant is a guess of ours, for nobody tells one."""

    @abc.abstractmethod
    def lever_values(self, levers: Sequence[Lever]) -> Float[Array, " P"]:
        """What levers stand at."""

    @abc.abstractmethod
    def pulled(self, levers: Sequence[Lever], x: Float[Array, " P"]) -> "Experiment":
        """The run with levers at other values; traces."""

    @abc.abstractmethod
    def course(self) -> Course:
        """The run itself; traces, differentiates in both directions."""

    @abc.abstractmethod
    def side_by_side(self) -> Course:
        """The runs of a batch: every array here has a leading axis, and so has the result."""

    @abc.abstractmethod
    def forward_only(self) -> "Experiment":
        """The same run, whose derivatives are taken in forward mode alone and cost less then."""

    def courses(self, levers: Sequence[Lever], x: Float[Array, "B P"]) -> Course:
        """Many runs, a row of lever values each; a leading axis `B` in the result."""
        return jax.vmap(lambda values: self.pulled(levers, values))(x).side_by_side()

    @abc.abstractmethod
    def of_run(
        self,
        start: Float[Array, " n"],
        controls: Float[Array, "T M"],
        lengths_h: Float[Array, " T"],
        volume_L: Scalar,
    ) -> "Experiment":
        """Another run of the same plant; the volume is what its first sample left."""

    @property
    @abc.abstractmethod
    def assays(self) -> tuple["Assay", ...]:
        """Columns that are measured on their own, and how well."""

    @abc.abstractmethod
    def start_of(self, seen: Mapping[str, float]) -> Float[np.ndarray, " n"]:
        """Where a run starts whose first sample reads this; NaN where nobody read."""

    @property
    def hours(self) -> Float[np.ndarray, " T+1"]:
        """Times of the samples [h]."""
        return np.concatenate([[0.0], np.cumsum(np.asarray(self.lengths_h, float))])


def choose_levers(experiment: Experiment, wanted: Iterable[str] | None = None) -> tuple[Lever, ...]:
    """Levers by name or group.

    Args:
        experiment: The run.
        wanted: Names, or groups of `GROUPS`; if None constants, set-points and start, without
            those whose uncertainty nobody knows.

    Returns:
        Levers in the order asked for, each once.

    Raises:
        ConfigError: If there is no lever of a name, or none at all.
    """
    known = {lever.name: lever for lever in experiment.levers}
    if wanted is None:
        found = [
            lever
            for lever in known.values()
            if lever.interval == WHOLE_RUN
            and lever.group != FEED
            and experiment.usual_law(lever) is not None
        ]
        return _some(found)
    found: list[Lever] = []
    for name in wanted:
        if name in known:
            found.append(known[name])
        elif name in GROUPS:
            found += _group(experiment, name)
        else:
            near = did_you_mean([name], (*known, *GROUPS))
            raise ConfigError(
                f"{name!r} is nothing that can be changed in this run{near}; there are the groups "
                f"{', '.join(GROUPS)} and {', '.join(list(known)[:40])}"
                f"{' and more' if len(known) > 40 else ''}."
            )
    return _some(list(dict.fromkeys(found)))


def _group(experiment: Experiment, name: str) -> list[Lever]:
    per_interval = name == "every set-point"
    group = SET_POINT if per_interval else name
    return [
        lever
        for lever in experiment.levers
        if lever.group == group
        and (lever.interval != WHOLE_RUN) == per_interval
        and (group != CONSTANT or experiment.usual_law(lever) is not None)
    ]


def _some(levers: list[Lever]) -> tuple[Lever, ...]:
    if not levers:
        raise ConfigError("no lever is left; name some of the run's constants or set-points.")
    return tuple(levers)


def set_point_levers(names: Sequence[str], units: Sequence[str], n_intervals: int) -> list[Lever]:
    """Levers of controls, over the whole run and by interval."""
    whole = [
        Lever(name, SET_POINT, unit, "", m)
        for m, (name, unit) in enumerate(zip(names, units, strict=True))
    ]
    return whole + [
        lever._replace(name=f"{lever.name}@{t + 1}", interval=t)
        for lever in whole
        for t in range(n_intervals)
    ]


def in_one(values: Sequence[ArrayLike]) -> Float[Array, " P"]:
    """Numbers as one array, in one call where they are known."""
    if any(isinstance(v, Tracer) for v in values):
        return jnp.stack([jnp.asarray(v, float) for v in values])
    return jnp.asarray(np.array([np.asarray(v) for v in values], float), float)


def set_point_values(
    controls: Float[Array, "T M"], levers: Sequence[Lever], given: Sequence[bool]
) -> list[ArrayLike]:
    """What levers of set-points stand at.

    Args:
        controls: Set-points.
        levers: Levers of the group `set-points`.
        given: Which controls are boluses: over the whole run their total counts, of others the
            mean.
    """
    # of two hundred numbers each would be a call to the device
    on_host = controls if isinstance(controls, Tracer) else np.asarray(controls)
    found = []
    for lever in levers:
        column = on_host[:, lever.place]
        if lever.interval != WHOLE_RUN:
            found.append(column[lever.interval])
        else:
            found.append(jnp.sum(column) if given[lever.place] else jnp.mean(column))
    return found


def with_set_points(
    controls: Float[Array, "T M"],
    levers: Sequence[Lever],
    x: Float[Array, " P"],
    given: Sequence[bool],
) -> Float[Array, "T M"]:
    """Set-points with levers at other values.

    A lever of the whole run moves all intervals alike: by the same amount, or, of boluses, by the
    same factor (a bolus that is not given at all is spread evenly). Levers of intervals come after.

    Args:
        controls: Set-points.
        levers: Levers of any group; others are passed over.
        x: Their values.
        given: Which controls are boluses.
    """
    own = [(i, lever) for i, lever in enumerate(levers) if lever.group == SET_POINT]
    for i, lever in own:
        if lever.interval != WHOLE_RUN:
            continue
        column = controls[:, lever.place]
        if given[lever.place]:
            total = jnp.sum(column)
            is_given = total > 0.0
            factor = x[i] / jnp.where(is_given, total, 1.0)
            column = jnp.where(is_given, column * factor, x[i] / column.size)
        else:
            column = column + (x[i] - jnp.mean(column))
        controls = controls.at[:, lever.place].set(column)
    single = [(i, lever) for i, lever in own if lever.interval != WHOLE_RUN]
    if single:
        rows, columns = (
            np.array([getattr(v, k) for _, v in single]) for k in ("interval", "place")
        )
        controls = controls.at[rows, columns].set(x[np.array([i for i, _ in single])])
    return controls


def with_entries(
    values: Float[Array, " n"],
    levers: Sequence[Lever],
    x: Float[Array, " P"],
    group: str,
    field: str = "",
) -> Float[Array, " n"]:
    """A vector with the entries that levers of a group and field name at other values."""
    own = [
        (i, lever.place)
        for i, lever in enumerate(levers)
        if lever.group == group and lever.field == field
    ]
    if not own:
        return values
    at, places = (np.array(v) for v in zip(*own, strict=True))
    return values.at[places].set(x[at])


def fields_of(levers: Sequence[Lever], group: str) -> tuple[str, ...]:
    """Fields that levers of a group belong to, each once."""
    return tuple(dict.fromkeys(lever.field for lever in levers if lever.group == group))
