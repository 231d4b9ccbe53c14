"""A rack of virtual vessels of described cultures, each its own plant, with one clock."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, STREAM_TOTALS, ConfigError, DataError
from perfusio_jax._core.programs import compiled
from perfusio_jax.process import Process

from .plain_plant import usual_start
from .rack_clock import RackClock, RackSample
from .virtual_plant import Interval, VirtualPlant
from .virtual_runs import readings_of_states, with_noise


@compiled
def _advance(
    plant: VirtualPlant, state: jax.Array, volume: jax.Array, controls: jax.Array, hours: jax.Array
) -> Interval:
    return plant.advance(state, volume, controls, hours)


@compiled
def _advance_alike(
    plants: VirtualPlant, state: jax.Array, volume: jax.Array, controls: jax.Array, hours: jax.Array
) -> Interval:
    """Vessels of one culture side by side, an axis of them in front of everything but the hours."""

    def one(
        plant: VirtualPlant, state: jax.Array, volume: jax.Array, controls: jax.Array
    ) -> Interval:
        return plant.advance(state, volume, controls, hours)

    return eqx.filter_vmap(one)(plants, state, volume, controls)


def _alike(plants: Sequence[VirtualPlant]) -> list[tuple[list[int], VirtualPlant]]:
    """Vessels whose plants differ in numbers only, and those plants stacked; one alone as it is."""
    groups: dict[Any, list[int]] = {}
    for i, plant in enumerate(plants):
        leaves, kind = jax.tree.flatten(plant)
        shapes = tuple((np.shape(v), str(jnp.asarray(v).dtype)) for v in leaves)
        groups.setdefault((kind, shapes), []).append(i)
    stacked = []
    for places in groups.values():
        mine = [plants[i] for i in places]
        many = jax.tree.map(lambda *v: np.stack([np.asarray(a) for a in v]), *mine)
        stacked.append((places, mine[0] if len(mine) == 1 else jax.device_put(many)))
    return stacked


@compiled
def _read(plant: VirtualPlant, state: jax.Array, key: jax.Array) -> jax.Array:
    true = readings_of_states(plant.process, plant.states, state)
    return with_noise(plant.process, true, key=key)


_PROBES = 2**31 - 1
"""Apart from the numbers of samples, which noise is counted by, too."""


class DescribedRack(RackClock):
    """One to 24 vessels, sampled together every so many hours.

    Set-points act from the time they are changed on; a bolus is none of them. The same seed,
    set-points and times give the same samples. A vessel whose plant fails stands still from then
    on and its readings are missing; the others go on. Not safe for two threads at once.

    Args:
        plants: Plant of each vessel; their processes may differ.
        interval_h: Hours between samples [h].
        starts: Concentrations and levels at inoculation by name, one mapping each; by default
            those of `usual_start`.
        controls: Set-points at the start by name, one mapping each; those not named have their
            defaults.
        seed: Seed of the first vessel's noise; each following one has the next.
        ids: Names of the vessels; R01, R02 and so on by default.

    Raises:
        ConfigError: For no vessels or more than 24, an interval that is none, or names and
            numbers that do not fit.
    """

    def __init__(
        self,
        plants: Sequence[VirtualPlant],
        *,
        interval_h: float = HOURS_PER_DAY,
        starts: Sequence[Mapping[str, float]] | None = None,
        controls: Sequence[Mapping[str, float]] | None = None,
        seed: int = 42,
        ids: Sequence[str] | None = None,
    ) -> None:
        n = len(plants)
        super().__init__(n, ids, interval_h)
        self.plants = tuple(plants)
        self._groups = _alike(self.plants)
        self._seed = int(seed)
        begun = _each(starts, n)
        self._state = [
            np.asarray([{**usual_start(p.process), **given}[name] for name in p.states], float)
            for p, given in zip(self.plants, begun, strict=True)
        ]
        self._volume = [float(p.volume_L) for p in self.plants]
        self._controls: list[dict[str, float]] = [
            {c.name: 0.0 if c.role == "bolus" else c.default for c in p.process.controls}
            for p in self.plants
        ]
        self._flowed = [np.zeros(len(p.process.streams)) for p in self.plants]
        for vessel, given in enumerate(_each(controls, n)):
            self.set_controls(vessel, given)
        self._take_sample()

    @property
    def volume_L(self) -> float:
        """Volume at the start of the first vessel [L]."""
        return float(self.plants[0].volume_L)

    def process(self, vessel: int) -> Process:
        """The culture of a vessel."""
        return self.plants[vessel].process

    def volume_of(self, vessel: int) -> float:
        """Volume in a vessel [L]."""
        return self._volume[vessel]

    def controls(self, vessel: int) -> dict[str, float]:
        """Set-points of a vessel by name."""
        return dict(self._controls[vessel])

    def set_controls(self, vessel: int, setpoints: Mapping[str, float]) -> None:
        """Change set-points from now on; those not named stay.

        Raises:
            ConfigError: If a name is no set-point that is held, or a value is out of its range.
                Nothing is changed then.
        """
        process = self.plants[vessel].process
        for name, value in setpoints.items():
            control = process.control(name)
            if control.role == "bolus":
                raise ConfigError(f"{name} is a bolus, which is given and not held.")
            if not control.lo <= value <= control.hi:
                raise ConfigError(
                    f"{name} is {value!r}; a number from {control.lo:g} to {control.hi:g} "
                    f"{control.unit} is needed."
                )
        self._controls[vessel].update({n: float(v) for n, v in setpoints.items()})

    def tags(self) -> list[dict[str, float | None]]:
        """What is shown all the time, per vessel: its volume [L], and what probes read now."""
        return [
            {"volume_L": volume, **self._probed(vessel)}
            for vessel, volume in enumerate(self._volume)
        ]

    def _probed(self, vessel: int) -> dict[str, float | None]:
        """Readings of the probes; those of one moment are the same however often one looks."""
        names = self.plants[vessel].process.online
        if not names:
            return {}
        if self._time_h == self._samples[-1][vessel].time_h:
            return {n: self._samples[-1][vessel].values[n] for n in names}
        found = self._readings(vessel, _PROBES, round(3600.0 * self._time_h))
        return {n: found[n] for n in names}

    def _readings(self, vessel: int, *folds: int) -> dict[str, float | None]:
        """What is read of a vessel now, with noise of its own for each of the numbers."""
        plant = self.plants[vessel]
        names = plant.process.readings
        if self.is_failed[vessel]:
            return dict.fromkeys(names)
        key = jax.random.key(self._seed + vessel)
        for fold in folds:
            key = jax.random.fold_in(key, fold)
        found = np.asarray(_read(plant, jnp.asarray(self._state[vessel]), key), float).tolist()
        return {n: None if math.isnan(v) else v for n, v in zip(names, found, strict=True)}

    def snapshot(self) -> dict[str, Any]:
        """Everything that changes with time, as plain numbers, lists and dictionaries."""
        return {
            "ids": list(self.ids),
            "processes": [p.process.model_dump(mode="json") for p in self.plants],
            "interval_h": self.interval_h,
            "time_h": self._time_h,
            "state": [state.tolist() for state in self._state],
            "volume_L": list(self._volume),
            "controls": [dict(held) for held in self._controls],
            "flowed_L": [flowed.tolist() for flowed in self._flowed],
            "is_failed": self.is_failed.tolist(),
            "samples": [[_plain(s) for s in row] for row in self._samples],
        }

    def restore(self, saved: Mapping[str, Any]) -> Self:
        """Go on where a snapshot was taken.

        Raises:
            DataError: If it is of another rack or incomplete, naming the differences.
        """
        try:
            ids, processes = tuple(saved["ids"]), [Process(**p) for p in saved["processes"]]
            state = [np.asarray(row, float) for row in saved["state"]]
            volume = [float(v) for v in saved["volume_L"]]
            controls = [{n: float(v) for n, v in held.items()} for held in saved["controls"]]
            flowed = [np.asarray(row, float) for row in saved["flowed_L"]]
            samples = [[RackSample(**s) for s in row] for row in saved["samples"]]
            time_h, interval_h = float(saved["time_h"]), float(saved["interval_h"])
            is_failed = np.asarray(saved["is_failed"], bool)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"the saved state of the rack cannot be used: {error!r}") from error
        self._check(ids, processes, interval_h)
        shapes = [(s.shape, f.shape) for s, f in zip(state, flowed, strict=False)]
        mine = [(s.shape, f.shape) for s, f in zip(self._state, self._flowed, strict=True)]
        if shapes != mine or is_failed.shape != (self.n,) or len(volume) != self.n:
            raise DataError(f"the saved state of the rack has shapes {shapes}.")
        self._state, self._volume, self._controls, self._flowed = state, volume, controls, flowed
        self._samples, self._time_h, self.is_failed = samples, time_h, is_failed
        return self

    def _check(self, ids: tuple[str, ...], processes: list[Process], interval_h: float) -> None:
        if ids != self.ids or interval_h != self.interval_h:
            raise DataError(
                f"the state is of {', '.join(ids)}, sampled every {interval_h:g} h; this rack has "
                f"{', '.join(self.ids)}, every {self.interval_h:g} h."
            )
        for name, found, plant in zip(ids, processes, self.plants, strict=True):
            differs = found.differences(plant.process)
            if differs:
                raise DataError(
                    f"the state of {name} is of process {found.name}, and this rack has "
                    f"{plant.process.name}: {'; '.join(differs[:4])}."
                )

    def _move(self, to_h: float) -> None:
        hours = jnp.asarray(to_h - self._time_h, float)
        for places, plants in self._groups:
            if self.is_failed[places].all():
                continue
            names = self.plants[places[0]].process.control_names
            state = np.stack([self._state[i] for i in places])
            volume = np.asarray([self._volume[i] for i in places], float)
            held = np.asarray([[self._controls[i][n] for n in names] for i in places], float)
            is_one = len(places) == 1
            if is_one:
                state, volume, held = state[0], volume[0], held[0]
            now = (jnp.asarray(state), jnp.asarray(volume), jnp.asarray(held), hours)
            end = _advance(plants, *now) if is_one else _advance_alike(plants, *now)
            if is_one:
                end = jax.tree.map(lambda v: np.asarray(v)[None], end)
            self._take_over(places, jax.tree.map(np.asarray, end))
        self._time_h = to_h

    def _take_over(self, places: Sequence[int], end: Interval) -> None:
        """What vessels have come to; one whose plant fails stands still from now on."""
        for lane, i in enumerate(places):
            if self.is_failed[i]:
                continue
            state = np.asarray(end.state[lane], float)
            if int(end.result[lane]) or not np.isfinite(state).all():
                self.is_failed[i] = True
                continue
            self._state[i], self._volume[i] = state, float(end.volume_L[lane])
            self._flowed[i] = self._flowed[i] + np.asarray(end.flowed_L[lane], float)

    def _take_sample(self) -> list[RackSample]:
        number = self.day + 1
        time_h = number * self.interval_h
        taken = []
        for i, plant in enumerate(self.plants):
            process = plant.process
            seen = self._readings(i, number)
            if not process.is_constant_volume:
                seen["volume_L"] = self._volume[i]
            flowed = {
                s.total: float(v) if number else None
                for s, v in zip(process.streams, self._flowed[i], strict=True)
                if s.total
            }
            taken.append(
                RackSample(
                    day=math.floor(time_h / HOURS_PER_DAY),
                    time_h=time_h,
                    values=seen | {n: v for n, v in flowed.items() if n not in STREAM_TOTALS},
                    stream_totals={n: v for n, v in flowed.items() if n in STREAM_TOTALS},
                    controls=self.controls(i),
                )
            )
            self._flowed[i] = np.zeros_like(self._flowed[i])
        self._samples.append(taken)
        return taken


def _each(given: Sequence[Mapping[str, float]] | None, n: int) -> list[dict[str, float]]:
    if given is None:
        return [{} for _ in range(n)]
    if len(given) != n:
        raise ConfigError(f"{n} reactors need {n} of each; given {len(given)}.")
    return [dict(one) for one in given]


def _plain(sample: RackSample) -> dict[str, Any]:
    return {
        "day": sample.day,
        "time_h": sample.time_h,
        "values": dict(sample.values),
        "stream_totals": dict(sample.stream_totals),
        "controls": dict(sample.controls),
    }
