"""Virtual bioreactor behind the connector interface: the async face of the plant."""

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import (
    CONTROL_NAMES,
    HOURS_PER_DAY,
    STATE_ORDER,
    ConfigError,
    DataError,
)
from perfusio_jax._core.instants import as_day
from perfusio_jax.chemistry import from_balanced
from perfusio_jax.mechanistic import (
    Method,
    controls_from_dict,
    make_plan,
    medium_from_dict,
    plant_to_balanced,
    simulate,
)
from perfusio_jax.simulator.noise import NoiseModel
from perfusio_jax.simulator.plant import (
    PUBLISHED_FACTORS,
    campaign_design,
    initial_state,
    observe,
    simulate_campaign,
    virtual_reactor,
    whole_intervals,
)

_STREAMS = Method(totals="streams")
READINGS = ("VCD", "VCV", "Via", "Diam", *STATE_ORDER[2:], "DCD")


class CHOSimulator:
    """One virtual bioreactor with the interface of a real one.

    Day 0 is inoculation. The state is carried forward: a set-point change acts from the last
    sample on, and the past is never simulated again. Reading a day again returns the same
    sample. Samples are daily, until `sample_every` says otherwise.

    Args:
        clone: `"CloneX"` (lactate switch) or `"CloneY"`.
        y0: State at inoculation by species; missing ones take the default.
        controls: Set-points at the start by name; missing ones take the centre recipe.
            `glucose_feed_conc` [g/L] and `gln_feed_conc` [mmol/L] choose the perfusion medium.
        volume_L: Working volume [L].
        noise: Noise of the samples.
        acceleration: Simulated over real time; `seconds_per_day` follows from it.
        seed: Seed of the noise, unless `noise` is given.

    Examples:
        >>> import asyncio
        >>> sim = CHOSimulator(clone="CloneX", seed=42)
        >>> sample = asyncio.run(sim.read_sample(day=3))
        >>> "VCD" in sample
        True
    """

    STATE_SPECIES: ClassVar[list[str]] = list(STATE_ORDER)

    def __init__(
        self,
        clone: str = "CloneX",
        y0: Mapping[str, float] | None = None,
        controls: Mapping[str, float] | None = None,
        volume_L: float = 0.25,
        noise: NoiseModel | None = None,
        acceleration: float = 1.0,
        seed: int = 42,
    ) -> None:
        if not acceleration > 0:
            raise ConfigError(f"acceleration is {acceleration}; it must be above zero.")
        if not volume_L > 0:
            raise ConfigError(f"volume_L is {volume_L}; it must be above zero.")
        self.clone = clone
        reactor = virtual_reactor(clone)
        medium = medium_from_dict(controls or {}, reactor.medium)
        self.reactor = eqx.tree_at(lambda r: r.medium, reactor, medium)
        self.noise = NoiseModel(seed=seed) if noise is None else noise
        self.acceleration = float(acceleration)
        self.volume_L = float(volume_L)
        self._controls = controls_from_dict(controls or {})
        self._initial = initial_state(y0)
        self._states: list[Float[Array, " 10"]] = [self._initial]
        self._streams: list[Float[np.ndarray, " 4"]] = [np.full(4, np.nan)]
        self._applied: list[Float[Array, " 6"]] = []
        self._lock = asyncio.Lock()
        self._interval_h = HOURS_PER_DAY

    def sample_every(self, interval_h: float) -> None:
        """Take samples at an interval; days are then fractions of one between two whole days.

        Args:
            interval_h: Time between two samples [h].

        Raises:
            ConfigError: If it is not above zero, or samples were taken at another interval.
        """
        if not (np.isfinite(interval_h) and interval_h > 0):
            raise ConfigError(f"a sample every {interval_h} h: hours above 0 are needed.")
        if interval_h != self._interval_h and len(self._states) > 1:
            raise ConfigError(
                f"a sample every {interval_h:g} h was asked for; this reactor has been sampled "
                f"every {self._interval_h:g} h up to day {self.day:g}. Make another one."
            )
        self._interval_h = float(interval_h)

    @property
    def seconds_per_day(self) -> float:
        """Real seconds one simulated day lasts [s]."""
        return 86400.0 / self.acceleration

    @property
    def day(self) -> float:
        """Last day reached [d]; an `int` where it is a whole one."""
        return as_day(self._interval_h * (len(self._states) - 1) / HOURS_PER_DAY)

    @property
    def controls(self) -> dict[str, float]:
        """Set-points in force by name."""
        return dict(zip(CONTROL_NAMES, np.asarray(self._controls).tolist(), strict=True))

    async def is_alive(self) -> bool:
        """Whether the virtual reactor runs; it always does."""
        return True

    def _row(self, day: float) -> int:
        """Number of the sample of a day.

        Raises:
            DataError: If none is taken on that day.
        """
        row = round(HOURS_PER_DAY * day / self._interval_h)
        if row < 0 or abs(self._interval_h * row - HOURS_PER_DAY * day) > 1e-6:
            what = (
                "days are whole numbers from 0"
                if self._interval_h == HOURS_PER_DAY
                else f"samples are taken every {self._interval_h:g} h from day 0 on"
            )
            raise DataError(f"day {day} is not a culture day; {what}.")
        return row

    def _reached(self, day: float, what: str) -> int:
        row = self._row(day) if day >= 0 else -1
        if not 0 <= row < len(self._states):
            raise DataError(f"day {day:g} has no {what} yet; days 0 to {self.day:g} have.")
        return row

    def _advance_to(self, row: int) -> None:
        while len(self._states) <= row:
            plan = make_plan(
                self.reactor,
                self._states[-1][None],
                self._controls[None],
                jnp.full(1, self._interval_h),
                volume_L=self.volume_L,
                start_h=self._interval_h * (len(self._states) - 1),
            )
            out = simulate(self.reactor, plan, method=_STREAMS)
            perfusion, bleed, glucose, _ = np.asarray(out.totals[0, 1])
            self._streams.append(np.array([perfusion, bleed, glucose, 0.0]))
            self._applied.append(self._controls)
            self._states.append(out.concentrations[0, 1])

    def truth(self, day: float) -> dict[str, float]:
        """Noise-free readings of a day that has been reached.

        Raises:
            DataError: If the day lies ahead; only reading a sample moves the reactor on.
        """
        state = self._states[self._reached(day, "state")]
        row = np.asarray(observe(self.reactor.kinetics, state))
        return dict(zip(READINGS, row[:12].tolist(), strict=True))

    def stream_totals(self, day: float) -> Float[np.ndarray, " 4"]:
        """Volumes of perfusion, bleed, glucose and sample since the last one [L]; NaN on day 0."""
        return self._streams[self._reached(day, "totals")]

    async def read_sample(self, day: float) -> dict[str, float | None]:
        """Sample of a culture day; moves the reactor on to that day if needed.

        Args:
            day: Culture day [d], 0 at inoculation.

        Returns:
            Reading per species, None where missing.

        Raises:
            DataError: If no sample is taken on that day.
        """
        row = self._row(day)
        async with self._lock:
            await asyncio.to_thread(self._advance_to, row)
        return self.noise.apply(self.truth(day), row)

    async def write_setpoints(self, setpoints: dict[str, float]) -> None:
        """Change set-points from the last sample on.

        Args:
            setpoints: New values by name; controls not named keep theirs.

        Raises:
            ConfigError: If a name is not a set-point, a value is not finite, or bleed exceeds
                perfusion. Nothing is changed then.
        """
        unknown = sorted(set(setpoints) - {*CONTROL_NAMES, "pyr_feed_conc"})
        if unknown:
            raise ConfigError(f"{unknown} are not set-points; allowed are {list(CONTROL_NAMES)}.")
        wrong = {k: v for k, v in setpoints.items() if not np.isfinite(v)}
        if wrong:
            raise ConfigError(f"set-points must be finite; given {wrong}.")
        async with self._lock:  # not in the middle of a reading that moves the reactor on
            self._controls = controls_from_dict(setpoints, base=self.controls)

    def simulate_run(
        self,
        n_days: int = 28,
        controls: Mapping[str, float] | None = None,
        seed: int | None = None,
        *,
        interval_h: float = HOURS_PER_DAY,
    ) -> Float[np.ndarray, "samples 9"]:
        """A clean run from inoculation under constant set-points.

        Args:
            n_days: Number of days.
            controls: Set-points by name; those in force otherwise.
            seed: Ignored; the plant is deterministic.
            interval_h: Time between rows [h].

        Returns:
            Measured face without noise, row 0 at inoculation.

        Raises:
            ConfigError: If there is no day, or the days are no whole number of intervals.
        """
        if n_days < 1:
            raise ConfigError(f"n_days is {n_days}; it must be at least 1.")
        count = whole_intervals(n_days, interval_h)
        u = self._controls if controls is None else controls_from_dict(controls, self.controls)
        medium = medium_from_dict(controls or {}, self.reactor.medium)
        reactor = eqx.tree_at(lambda r: r.medium, self.reactor, medium)
        plan = make_plan(
            reactor,
            self._initial[None],
            u[None],
            jnp.full(count, float(interval_h)),
            volume_L=self.volume_L,
        )
        out = simulate(reactor, plan)
        return np.asarray(from_balanced(plant_to_balanced(out.concentrations[0])))

    def generate_box_behnken_experiment(
        self, n_days: int = 28, seed: int = 0
    ) -> list[dict[str, Any]]:
        """The published training campaign: 24 Box-Behnken runs and three centre points.

        Args:
            n_days: Length of each run [d].
            seed: Seed of the noise.

        Returns:
            Per run: `run_id`, `controls` by name, `trajectory` (clean measured face) and
            `noisy_samples` (one dictionary per day, None where missing).
        """
        design = jnp.asarray(campaign_design(factors=PUBLISHED_FACTORS, spread=False))
        runs = design.shape[0]
        readings = simulate_campaign(
            self.reactor,
            jnp.broadcast_to(self._initial, (runs, 10)),
            jnp.broadcast_to(design[:, None, :], (runs, n_days, 6)),
            dataclasses.replace(self.noise, jitter_hours=0.0),
            key=jax.random.key(seed),
            volume_L=self.volume_L,
        )
        face = [READINGS.index(s) for s in STATE_ORDER]
        truth, measured = np.asarray(readings.truth), np.asarray(readings.measured)
        return [
            {
                "run_id": i,
                "controls": dict(zip(CONTROL_NAMES, np.asarray(design[i]).tolist(), strict=True)),
                "trajectory": truth[i][:, face],
                "noisy_samples": [
                    {
                        name: None if np.isnan(v) else float(v)
                        for name, v in zip(READINGS, row, strict=True)
                    }
                    for row in measured[i]
                ],
            }
            for i in range(runs)
        ]


def five_reactors(seed_start: int = 0) -> list[CHOSimulator]:
    """Five independent virtual reactors: three of clone X, two of clone Y.

    Args:
        seed_start: Seed of the first reactor's noise; each next one has the next number.
    """
    clones = ["CloneX"] * 3 + ["CloneY"] * 2
    return [CHOSimulator(clone=c, seed=seed_start + i) for i, c in enumerate(clones)]
