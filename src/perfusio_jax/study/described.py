"""A run of a described culture, as studies look at it."""

import dataclasses
from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import Scalar
from perfusio_jax.mechanistic.mechanism import entry_names, told_constants
from perfusio_jax.simulator import VirtualPlant, run_plant, usual_start
from perfusio_jax.simulator.virtual_runs import readings_of_states

from .experiment import (
    CONSTANT,
    FEED,
    SET_POINT,
    START,
    Assay,
    Course,
    Experiment,
    Law,
    Lever,
    fields_of,
    in_one,
    lognormal,
    normal,
    set_point_levers,
    set_point_values,
    uniform,
    with_entries,
    with_set_points,
)
from .given import by_name, check_start, interval_lengths, set_points

_UNTOLD = 0.1
"""Log standard deviation of a constant whose uncertainty nobody tells [-]."""
_PREPARED = 0.1
"""Log standard deviation of what people weigh in: feeds and inocula [-]."""
VOLUME = "volume_L"


class DescribedExperiment(Experiment):
    """One run of a virtual plant; make it with `described_experiment`."""

    plant: VirtualPlant
    """The plant."""
    start: Float[Array, " n"]
    """Concentrations and levels at the start, in the order of `plant.states`."""
    controls: Float[Array, "T M"]
    """Set-points by interval."""
    lengths_h: Float[Array, " T"]
    """Lengths of the intervals [h]."""
    volume_L: Scalar
    """Volume at the start [L]."""
    sample_L: Scalar
    """Volume that every sample takes [L]."""

    @property
    def columns(self) -> tuple[str, ...]:
        """States, what follows from them, and the volume."""
        process, states = self.plant.process, self.plant.states
        follows = (q.name for q in process.quantities if q.is_measured and q.formula)
        return (*states, *(name for name in follows if name not in states), VOLUME)

    @property
    def is_in_lanes(self) -> bool:
        """Every run in a loop of its own."""
        return False

    def unit(self, column: str) -> str:
        """Unit of a column."""
        return "L" if column == VOLUME else self.plant.process.quantity(column).unit

    @property
    def levers(self) -> tuple[Lever, ...]:
        """Constants, set-points, feeds, start."""
        plant, process = self.plant, self.plant.process
        taken = {*process.control_names}
        found: list[Lever] = []
        for field, told in told_constants(plant.mechanism).items():
            entries = entry_names(plant.mechanism, field)
            for k, name in enumerate(entries):
                whole = f"constant.{name}" if name in taken else name
                found.append(Lever(whole, CONSTANT, told.unit, field, k))
        found += set_point_levers(
            process.control_names, [c.unit for c in process.controls], self.controls.shape[0]
        )
        for stream in process.streams:
            if stream.direction == "out":
                continue
            for k, name in enumerate(process.carried):
                if isinstance(stream.carries.get(name), float | int):
                    unit = process.quantity(name).unit
                    found.append(Lever(f"{stream.name}.{name}", FEED, unit, stream.name, k))
        found += [
            Lever(f"start.{name}", START, process.quantity(name).unit, "", k)
            for k, name in enumerate(plant.states)
        ]
        return tuple(found)

    def usual_law(self, lever: Lever) -> Law | None:
        """Constants by their priors, set-points over their ranges, the rest by ten per cent."""
        value = float(self.lever_values((lever,))[0])
        if lever.group == SET_POINT:
            control = self.plant.process.controls[lever.place]
            return uniform(control.lo, control.hi) if control.lo < control.hi else None
        if lever.group == CONSTANT:
            told = told_constants(self.plant.mechanism)[lever.field]
            if told.sd is not None:
                return normal(value, _entry(told.sd, lever.place))
            if value > 0.0:
                sd = _UNTOLD if told.log_sd is None else _entry(told.log_sd, lever.place)
                return lognormal(value, sd)
            return None
        if lever.group == START and self.plant.states[lever.place] in self.plant.process.levels:
            span = self.plant.process.quantity(self.plant.states[lever.place])
            return normal(value, 0.05 * (span.hi - span.lo))
        return lognormal(value, _PREPARED) if value > 0.0 else None

    def is_assumed(self, lever: Lever) -> bool:
        """Whether the mechanism tells no prior of a constant."""
        if lever.group != CONSTANT:
            return False
        told = told_constants(self.plant.mechanism)[lever.field]
        return told.sd is None and told.log_sd is None

    def lever_values(self, levers: Sequence[Lever]) -> Float[Array, " P"]:
        """What levers stand at."""
        given = self._given()
        found = []
        for lever in levers:
            if lever.group == CONSTANT:
                field = getattr(self.plant.mechanism, lever.field)
                found.append(jnp.ravel(field)[lever.place])
            elif lever.group == SET_POINT:
                found += set_point_values(self.controls, [lever], given)
            elif lever.group == FEED:
                found.append(self.plant.contents[lever.field][lever.place])
            else:
                found.append(self.start[lever.place])
        return in_one(found)

    def pulled(self, levers: Sequence[Lever], x: Float[Array, " P"]) -> "DescribedExperiment":
        """The run with levers at other values."""
        mechanism, contents = self.plant.mechanism, dict(self.plant.contents)
        fields = fields_of(levers, CONSTANT)
        if fields:
            old = [getattr(mechanism, field) for field in fields]
            new = [
                with_entries(jnp.ravel(v), levers, x, CONSTANT, field).reshape(v.shape)
                for field, v in zip(fields, old, strict=True)
            ]
            mechanism = eqx.tree_at(lambda m: [getattr(m, f) for f in fields], mechanism, new)
        for stream in fields_of(levers, FEED):
            contents[stream] = with_entries(contents[stream], levers, x, FEED, stream)
        plant = eqx.tree_at(lambda p: (p.mechanism, p.contents), self.plant, (mechanism, contents))
        return dataclasses.replace(
            self,
            plant=plant,
            start=with_entries(self.start, levers, x, START),
            controls=with_set_points(self.controls, levers, x, self._given()),
        )

    def course(self) -> Course:
        """The run itself."""
        controls = jnp.broadcast_to(
            self.controls, (self.lengths_h.shape[0], self.controls.shape[1])
        )
        run = run_plant(
            self.plant,
            self.start,
            controls,
            self.lengths_h,
            volume_L=self.volume_L,
            sample_L=self.sample_L,
        )
        states, process = self.plant.states, self.plant.process
        parts = [run.states]
        follows = self.columns[len(states) : -1]
        if follows:
            readings = readings_of_states(process, states, run.states)
            place = {name: k for k, name in enumerate(process.readings)}
            parts.append(jnp.stack([readings[:, place[name]] for name in follows], axis=-1))
        return Course(jnp.concatenate([*parts, run.volume_L[:, None]], axis=-1), run.result)

    def side_by_side(self) -> Course:
        """The runs of a batch."""
        return jax.vmap(lambda one: one.course())(self)

    def forward_only(self) -> "DescribedExperiment":
        """The same run; a batch of derivatives then replays as many steps as its longest run."""
        return dataclasses.replace(self, plant=dataclasses.replace(self.plant, forward_only=True))

    def of_run(
        self,
        start: Float[Array, " n"],
        controls: Float[Array, "T M"],
        lengths_h: Float[Array, " T"],
        volume_L: Scalar,
    ) -> "DescribedExperiment":
        """Another run of the same plant."""
        before = volume_L + self.sample_L  # what the first sample takes is taken once more
        return dataclasses.replace(
            self, start=start, controls=controls, lengths_h=lengths_h, volume_L=before
        )

    @property
    def assays(self) -> tuple[Assay, ...]:
        """What is measured and modelled; without a floor, a thousandth of the range is one."""
        process = self.plant.process
        known = [q for q in process.quantities if q.is_measured and q.name in self.columns]
        return tuple(
            Assay(
                q.name,
                q.cv,
                q.floor if q.floor > 0.0 else 1e-3 * q.cv * q.hi,
                q.formula == "viability",
                q.name in process.levels,
            )
            for q in known
        )

    def start_of(self, seen: Mapping[str, float]) -> Float[np.ndarray, " n"]:
        """What was read, dead cells by the viability; where nothing was, as runs usually start."""
        process = self.plant.process
        usual = usual_start(process)
        found = {name: seen.get(name, np.nan) for name in self.plant.states}
        found = {n: v if np.isfinite(v) else usual[n] for n, v in found.items()}
        for q in process.quantities:
            share = seen.get(q.name, np.nan)
            if q.formula == "viability" and np.isfinite(share):
                alive, dead = q.of
                if not np.isfinite(seen.get(dead, np.nan)):
                    share = float(np.clip(share, 1.0, 100.0))
                    found[dead] = found[alive] * (100.0 - share) / share
        return np.array([found[name] for name in self.plant.states])

    def _given(self) -> tuple[bool, ...]:
        return tuple(c.role == "bolus" for c in self.plant.process.controls)


def described_experiment(
    plant: VirtualPlant,
    hours: ArrayLike,
    *,
    controls: ArrayLike | Mapping[str, float] | None = None,
    start: Mapping[str, float] | ArrayLike | None = None,
    volume_L: ArrayLike | None = None,
    sample_L: ArrayLike = 0.0,
) -> DescribedExperiment:
    """A run of a described culture.

    Args:
        plant: The plant.
        hours: Times of the samples [h]; the first is the start.
        controls: Set-points by interval `(T,M)`, or by name for the whole run; what is not named
            stands at its default.
        start: Concentrations and levels by name or in the order of `plant.states`; what is not
            named starts as `usual_start` says.
        volume_L: Volume at the start [L]; the plant's own if None.
        sample_L: Volume that every sample takes [L].

    Raises:
        ConfigError: If shapes do not fit, names are unknown, or times do not rise.

    Example:
        >>> from perfusio_jax.process import MONOD_CHEMOSTAT
        >>> from perfusio_jax.simulator import plain_monod, virtual_plant
        >>> plant = virtual_plant(MONOD_CHEMOSTAT, plain_monod(MONOD_CHEMOSTAT))
        >>> run = described_experiment(plant, np.arange(5) * 12.0, controls={"dilution": 0.2})
        >>> run.columns
        ('X', 'S', 'P', 'volume_L')
    """
    process = plant.process
    lengths = interval_lengths(hours)
    table = set_points(controls, {c.name: c.default for c in process.controls}, lengths.size)
    if start is None or isinstance(start, Mapping):
        usual = usual_start(process)
        begin = by_name(start, {name: usual[name] for name in plant.states}, "start")
    else:
        begin = np.asarray(start, float)
    check_start(begin, plant.states)
    volume = plant.volume_L if volume_L is None else volume_L
    return DescribedExperiment(
        plant=plant,
        start=jnp.asarray(begin),
        controls=jnp.asarray(table),
        lengths_h=jnp.asarray(lengths),
        volume_L=jnp.asarray(volume, float),
        sample_L=jnp.asarray(sample_L, float),
    )


def _entry(value: ArrayLike, place: int) -> float:
    flat = np.ravel(np.asarray(value, float))
    return float(flat[place] if flat.size > 1 else flat[0])
