"""A virtual plant of a described culture that knows the twin only through two files."""

import asyncio
import csv
import datetime as dt
import io
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, Result, SimulationError, describe
from perfusio_jax._core.programs import compiled
from perfusio_jax.connectors import FilesystemStore
from perfusio_jax.simulator import VirtualPlant
from perfusio_jax.simulator.virtual_plant import Interval
from perfusio_jax.simulator.virtual_runs import readings_of_states, with_noise
from perfusio_jax.twin import append_durably


@compiled
def advance(
    plant: VirtualPlant, state: jax.Array, volume: jax.Array, controls: jax.Array, hours: jax.Array
) -> Interval:
    """One interval of a plant."""
    return plant.advance(state, volume, controls, hours)


@compiled
def read(plant: VirtualPlant, state: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What assays without noise read, and what they read with it."""
    true = readings_of_states(plant.process, plant.states, state)
    return true, with_noise(plant.process, true, key=key)


class PlantRun:
    """A plant that lives on from sample to sample.

    Args:
        plant: The plant.
        start: Concentrations and levels at the start, in the order of its states.
        controls: Set-points it starts with, by name; boluses are none.
        seed: Of the noise of assays.
    """

    def __init__(
        self,
        plant: VirtualPlant,
        start: np.ndarray,
        controls: Mapping[str, float],
        *,
        seed: int,
    ) -> None:
        self.plant, self.process = plant, plant.process
        self._state, self._volume = jnp.asarray(start, float), jnp.asarray(plant.volume_L, float)
        self._key = jax.random.key(seed)
        self.controls = {n: float(controls.get(n, 0.0)) for n in plant.process.control_names}
        self.time_h, self.n_samples = 0.0, 0
        self.true: list[np.ndarray] = []
        """Noise-free readings of each sample."""
        self.applied: list[dict[str, float]] = []
        """Set-points that acted in each finished interval."""

    def live(self, hours: float) -> None:
        """Go on under the set-points in force.

        Args:
            hours: How long [h].

        Raises:
            SimulationError: If the plant cannot go on.
        """
        held = jnp.asarray([self.controls[n] for n in self.process.control_names], float)
        end = advance(self.plant, self._state, self._volume, held, jnp.asarray(hours, float))
        code = int(end.result)
        if code != Result.SUCCESS.value:
            raise SimulationError(
                f"the virtual plant failed after {self.time_h:g} h: {describe(code)}"
            )
        self._state, self._volume = end.state, end.volume_L
        self.time_h += hours
        self.applied.append(dict(self.controls))

    def sample(self) -> dict[str, float]:
        """Read a sample now, with the noise of its assays."""
        key = jax.random.fold_in(self._key, self.n_samples)
        true, seen = read(self.plant, self._state, key)
        self.n_samples += 1
        self.true.append(np.asarray(true))
        return dict(zip(self.process.readings, np.asarray(seen, float).tolist(), strict=True))

    @property
    def volume_L(self) -> float:
        """Volume in the vessel [L]."""
        return float(self._volume)


class DescribedFileReactor:
    """A plant behind a sample file and a set-point file.

    Args:
        folder: Where the two files lie.
        run: The plant, at its start.
        interval_h: Time between two samples [h].
        inoculated: Wall-clock time of the first sample.
    """

    def __init__(
        self,
        folder: Path,
        run: PlantRun,
        *,
        interval_h: float = HOURS_PER_DAY,
        inoculated: dt.datetime | None = None,
    ) -> None:
        self.samples, self.setpoints = folder / "samples.csv", folder / "setpoints.csv"
        self.run, self.interval_h = run, interval_h
        self.inoculated = inoculated or dt.datetime.now(dt.UTC)
        process = run.process
        self._log = FilesystemStore(self.samples, self.setpoints, process=process)
        self._moves = not process.is_constant_volume
        folder.mkdir(parents=True, exist_ok=True)
        if not self.samples.exists():
            volume = [("volume_L", "L")] if self._moves else []
            held = [(c.name, c.unit) for c in process.controls if c.role != "bolus"]
            read = [(n, process.quantity(n).unit) for n in process.readings]
            columns = [("time_h", "h"), *read, *held, *volume, ("sampled_at", "")]
            names, units = zip(*columns, strict=True)
            append_durably(self.samples, _line(names) + _line(units))

    async def sample(self) -> None:
        """Live until the next sample under the set-points in the file, then append it."""
        if self.run.n_samples:
            if self.setpoints.exists():
                self.run.controls.update(await self._log.read_setpoints())
            self.run.live(self.interval_h)
        seen = self.run.sample()
        taken = self.inoculated + dt.timedelta(hours=self.run.time_h)
        held = [c.name for c in self.run.process.controls if c.role != "bolus"]
        cells = [
            f"{self.run.time_h:.10g}",
            *("" if np.isnan(v) else f"{v:.6g}" for v in seen.values()),
            *(f"{self.run.controls[n]:.10g}" for n in held),
            *([f"{self.run.volume_L:.8g}"] if self._moves else []),
            taken.isoformat(timespec="seconds"),
        ]
        await asyncio.to_thread(append_durably, self.samples, _line(cells))


def _line(cells: object) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerow(cells)  # pyright: ignore[reportArgumentType]
    return out.getvalue().encode()
