"""A virtual reactor that knows the twin only through two files.

It appends each day's sample to `samples.csv` and obeys the last line of `setpoints.csv`.
"""

import asyncio
import datetime as dt
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from perfusio_jax._core import CONTROL_NAMES, FORECAST_SPECIES, STREAM_TOTALS
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.connectors import FilesystemStore
from perfusio_jax.simulator import CHOSimulator
from perfusio_jax.twin import append_durably

_COLUMNS = ("reactor_id", "time_h", *FORECAST_SPECIES, *CONTROL_NAMES, *STREAM_TOTALS, "sampled_at")


class FileReactor:
    """Virtual reactor behind a sample file and a set-point file.

    Args:
        folder: Where the two files lie.
        simulator: The plant.
        reactor_id: Vessel.
        inoculated: Wall-clock time of day 0 in the sample file.
    """

    def __init__(
        self,
        folder: Path,
        simulator: CHOSimulator,
        *,
        reactor_id: str = "R01",
        inoculated: dt.datetime | None = None,
    ) -> None:
        self.samples = folder / "samples.csv"
        self.setpoints = folder / "setpoints.csv"
        self.simulator = simulator
        self.reactor_id = reactor_id
        self.inoculated = inoculated or dt.datetime.now(dt.UTC)
        self._log = FilesystemStore(self.samples, self.setpoints)
        self.applied: list[dict[str, float]] = []
        """Set-points that acted in each finished interval."""
        folder.mkdir(parents=True, exist_ok=True)
        if not self.samples.exists():
            units = ("", "h", *(canonical_unit(n) for n in _COLUMNS[2:-1]), "")
            header = ",".join(_COLUMNS) + "\n" + ",".join(units) + "\n"
            append_durably(self.samples, header.encode())

    async def sample(self, day: float) -> None:
        """Live until a day under the set-points in the file, then append its sample.

        Args:
            day: Culture day [d].
        """
        if self.setpoints.exists():
            await self.simulator.write_setpoints(await self._log.read_setpoints())
        if day > 0:
            self.applied.append(self.simulator.controls)
        reading = await self.simulator.read_sample(day)
        totals = self.simulator.stream_totals(day)
        taken = self.inoculated + dt.timedelta(days=day)
        cells = [
            self.reactor_id,
            f"{24.0 * day:g}",
            *(_cell(reading.get(n)) for n in FORECAST_SPECIES),
            *(f"{self.simulator.controls[n]:.10g}" for n in CONTROL_NAMES),
            *(_cell(None if np.isnan(v) else float(v)) for v in totals),
            taken.isoformat(timespec="seconds"),
        ]
        await asyncio.to_thread(append_durably, self.samples, (",".join(cells) + "\n").encode())

    def truth(self, days: int) -> Mapping[str, np.ndarray]:
        """Noise-free readings of days 0 to `days`, by species."""
        rows = [self.simulator.truth(d) for d in range(days + 1)]
        return {n: np.array([row[n] for row in rows]) for n in FORECAST_SPECIES}


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
