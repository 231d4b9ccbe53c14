"""A rack of virtual reactors that moves through time together, whatever their number.

Up to 24 vessels are integrated side by side in one compiled program: the rack is filled up
with copies of its last vessel, so that one, five and twenty-four vessels share a compile.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import (
    AUXILIARY_TAGS,
    CONTROL_NAMES,
    FORECAST_SPECIES,
    STREAM_TOTALS,
    ConfigError,
    DataError,
)
from perfusio_jax._core.programs import compiled
from perfusio_jax.mechanistic import (
    Method,
    Reactor,
    controls_from_dict,
    integrate,
    make_plan,
    medium_from_dict,
)
from perfusio_jax.simulator.faults import Fault, apply_faults
from perfusio_jax.simulator.noise import NoiseModel
from perfusio_jax.simulator.plant import initial_state, observe, rack
from perfusio_jax.simulator.probes import probe_means, read_probes
from perfusio_jax.simulator.rack_clock import RACK_SIZE, RackClock, RackSample

_STREAMS: Final = Method(totals="streams")
_BLOCK: Final = 64


@compiled
def _advance(
    reactor: Reactor,
    concentrations: Float[Array, "24 10"],
    controls: Float[Array, "24 6"],
    dt_h: Array,
    start_h: Array,
    volume_L: Array,
) -> tuple[Array, Array, Array]:
    plan = make_plan(
        reactor, concentrations, controls, dt_h[None], volume_L=volume_L, start_h=start_h
    )
    out = integrate(reactor, plan, None, _STREAMS)
    return out.concentrations[:, 1], out.totals[:, 1], out.result


@compiled
def _observe(reactor: Reactor, concentrations: Float[Array, "24 10"]) -> Array:
    return observe(reactor.kinetics, concentrations)[..., : len(FORECAST_SPECIES)]


class VirtualRack(RackClock):
    """One to 24 virtual reactors with one clock, daily samples and online probes.

    Set-points act from the time they are changed on. The same seeds, set-points and times give
    the same samples. A vessel whose integration fails stands still from then on and its
    readings are missing; the others go on. Not safe for two threads at once.

    Args:
        clones: Virtual clone per vessel.
        controls: Set-points at the start by name, one mapping for all vessels or one each;
            `glucose_feed_conc` [g/L] and `gln_feed_conc` [mmol/L] choose the medium (of all).
        y0: State at inoculation by species.
        volume_L: Working volume [L].
        noise: Noise of the samples; the seed of each vessel replaces its own.
        seed: Seed of the first vessel's noise; each following one has the next.
        spread: Vessel-to-vessel variation of the constants [-].
        faults: Faults of the daily samples; rows are days, columns `FORECAST_SPECIES`.
        ids: Names of the vessels; R01, R02 and so on by default.

    Raises:
        ConfigError: For no vessels or more than 24, unknown clones, or numbers of controls or
            names that do not fit.
    """

    def __init__(
        self,
        clones: Sequence[str],
        *,
        controls: Mapping[str, float] | Sequence[Mapping[str, float]] | None = None,
        y0: Mapping[str, float] | None = None,
        volume_L: float = 0.25,
        noise: NoiseModel | None = None,
        seed: int = 42,
        spread: float = 0.0,
        faults: Sequence[Fault] = (),
        ids: Sequence[str] | None = None,
    ) -> None:
        n = len(clones)
        if not volume_L > 0:
            raise ConfigError(f"volume_L is {volume_L}; it must be above zero.")
        super().__init__(n, ids)
        padded = [*clones, *[clones[-1]] * (RACK_SIZE - n)]
        self.clones = tuple(clones)
        given = _one_each(controls, n)
        reactor, _ = rack(padded, key=jax.random.key(seed), spread=spread)
        medium = medium_from_dict(given[0], reactor.medium)
        self.reactor = eqx.tree_at(lambda r: r.medium, reactor, medium)
        self.volume_L = float(volume_L)
        model = NoiseModel() if noise is None else noise
        self.noise = [dataclasses.replace(model, seed=seed + i) for i in range(n)]
        self.faults: list[Fault] = list(faults)
        self._seed = seed
        self._controls = np.stack([np.asarray(controls_from_dict(g)) for g in given])
        start = np.asarray(initial_state(y0))
        self._state = np.repeat(start[None], n, axis=0)
        self._totals = np.zeros((n, len(STREAM_TOTALS)))
        self._raw = np.empty((0, n, len(FORECAST_SPECIES)))
        self._n_probes = 0
        self._take_sample()

    def controls(self, vessel: int) -> dict[str, float]:
        """Set-points of a vessel by name."""
        return dict(zip(CONTROL_NAMES, self._controls[vessel].tolist(), strict=True))

    def set_controls(self, vessel: int, setpoints: Mapping[str, float]) -> None:
        """Change set-points from now on; those not named stay.

        Raises:
            ConfigError: If a name is no set-point, a value not finite, or bleed exceeds
                perfusion. Nothing is changed then.
        """
        changed = controls_from_dict(dict(setpoints), self.controls(vessel))
        self._controls[vessel] = np.asarray(changed)

    def truth(self) -> Float[np.ndarray, "n 12"]:
        """Noise-free readings now, in `FORECAST_SPECIES` order."""
        return np.asarray(_observe(self.reactor, _filled(self._state)))[: self.n]

    def tags(self) -> list[dict[str, float | None]]:
        """Online tags now, per vessel, with the noise of the probes."""
        means = probe_means(self.truth(), self._controls, self._time_h)
        rng = np.random.default_rng([self._seed, self._n_probes])
        self._n_probes += 1
        return [
            {
                name: None if failed else float(v)
                for name, v in zip(AUXILIARY_TAGS, row, strict=True)
            }
            for row, failed in zip(read_probes(means, rng), self.is_failed, strict=True)
        ]

    def snapshot(self) -> dict[str, Any]:
        """Everything that changes with time, as plain numbers, lists and dictionaries."""
        return {
            "ids": list(self.ids),
            "clones": list(self.clones),
            "time_h": self._time_h,
            "state": self._state.tolist(),
            "controls": self._controls.tolist(),
            "totals": self._totals.tolist(),
            "n_probes": self._n_probes,
            "is_failed": self.is_failed.tolist(),
            "samples": [[dataclasses.asdict(s) for s in row] for row in self._samples],
            "raw": [
                [[None if np.isnan(v) else v for v in vessel] for vessel in row]
                for row in self._raw.tolist()
            ],
        }

    def restore(self, saved: Mapping[str, Any]) -> Self:
        """Go on where a snapshot was taken.

        Raises:
            DataError: If it is of another rack or incomplete.
        """
        try:
            if tuple(saved["ids"]) != self.ids or tuple(saved["clones"]) != self.clones:
                raise DataError(
                    f"the state is of {list(zip(saved['ids'], saved['clones'], strict=False))}, "
                    f"this rack has {list(zip(self.ids, self.clones, strict=True))}."
                )
            state = np.asarray(saved["state"], float)
            controls = np.asarray(saved["controls"], float)
            totals = np.asarray(saved["totals"], float)
            raw = np.array(saved["raw"], dtype=float)
            samples = [[RackSample(**s) for s in row] for row in saved["samples"]]
            time_h, n_probes = float(saved["time_h"]), int(saved["n_probes"])
            is_failed = np.asarray(saved["is_failed"], bool)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"the saved state of the rack cannot be used: {error!r}") from error
        shapes = (state.shape, controls.shape, totals.shape, is_failed.shape)
        if shapes != (
            self._state.shape,
            self._controls.shape,
            self._totals.shape,
            self.is_failed.shape,
        ):
            raise DataError(f"the saved state of the rack has shapes {shapes}.")
        self._state, self._controls, self._totals, self._raw = state, controls, totals, raw
        self._samples, self._time_h, self._n_probes = samples, time_h, n_probes
        self.is_failed = is_failed
        return self

    def _move(self, to_h: float) -> None:
        state, totals, result = _advance(
            self.reactor,
            _filled(self._state),
            _filled(self._controls),
            jnp.asarray(to_h - self._time_h, float),
            jnp.asarray(self._time_h, float),
            jnp.asarray(self.volume_L, float),
        )
        moved, made = np.asarray(state)[: self.n], np.asarray(totals)[: self.n]
        failed = (np.asarray(result)[: self.n] != 0) | ~np.isfinite(moved).all(axis=1)
        self.is_failed |= failed
        going = ~self.is_failed
        self._state = np.where(going[:, None], moved, self._state)
        self._totals[going, :3] += made[going, :3]
        self._time_h = to_h

    def _take_sample(self) -> list[RackSample]:
        day = self.day + 1
        truth = self.truth()
        row = np.full(truth.shape, np.nan)
        for i in range(self.n):
            if not self.is_failed[i]:
                state = dict(zip(FORECAST_SPECIES, truth[i].tolist(), strict=True))
                noisy = self.noise[i].apply(state, day)
                row[i] = [np.nan if v is None else v for v in noisy.values()]
        self._raw = np.concatenate([self._raw, row[None]])
        taken = []
        for i, values in enumerate(self._with_faults()):
            totals = self._totals[i].tolist()
            taken.append(
                RackSample(
                    day=day,
                    time_h=self._time_h,
                    values={
                        name: None if np.isnan(v) else float(v)
                        for name, v in zip(FORECAST_SPECIES, values, strict=True)
                    },
                    stream_totals={
                        name: v if day else None
                        for name, v in zip(STREAM_TOTALS, totals, strict=True)
                    },
                    controls=self.controls(i),
                )
            )
        self._totals[:] = 0.0
        self._samples.append(taken)
        return taken

    def _with_faults(self) -> Float[np.ndarray, "n 12"]:
        """The newest readings with the faults in them; rows are padded so that shapes repeat."""
        n_days = len(self._raw)
        if not self.faults:
            return self._raw[-1]
        size = -(-n_days // _BLOCK) * _BLOCK
        readings = np.full((self.n, size, len(FORECAST_SPECIES)), np.nan)
        readings[:, :n_days] = np.moveaxis(self._raw, 0, 1)
        return np.asarray(apply_faults(jnp.asarray(readings), self.faults))[:, n_days - 1]


def _one_each(
    controls: Mapping[str, float] | Sequence[Mapping[str, float]] | None, n: int
) -> list[dict[str, float]]:
    if controls is None or isinstance(controls, Mapping):
        return [dict(controls or {}) for _ in range(n)]
    if len(controls) != n:
        raise ConfigError(f"{n} reactors need {n} recipes; given {len(controls)}.")
    return [dict(c) for c in controls]


def _filled(rows: np.ndarray) -> Array:
    """Rows of the rack, filled up with copies of the last one."""
    missing = RACK_SIZE - len(rows)
    return jnp.asarray(np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]), float)
