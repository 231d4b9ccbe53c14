"""An example of a transfer study: simulated fed-batches as a campaign table and its culture."""

from pathlib import Path
from typing import Final

import jax
import numpy as np

from perfusio_jax._core import STREAM_TOTALS, DataError
from perfusio_jax._core.units import CANONICAL_UNITS, canonical_unit
from perfusio_jax.connectors import write_described
from perfusio_jax.embedding import StudyData, simulate_study
from perfusio_jax.process import Control, Process, Quantity, Stream
from perfusio_jax.simulator import FED_BATCH_CONTROLS, FED_BATCH_SPECIES, FedBatchRuns
from perfusio_jax.states import Trajectory

TABLE: Final = "campaign.csv"
CULTURE: Final = "process.toml"

_FEED: Final = {"Glc": 400.0, "Gln": 120.0}
_HI: Final = {"VCD": 100.0, "Glc": 200.0, "Gln": 50.0, "Amm": 50.0, "Lac": 200.0, "Titer": 2e4}
_FLOOR: Final = {"VCD": 0.02, "Glc": 0.25, "Gln": 0.02, "Amm": 0.02, "Lac": 0.2, "Titer": 5.0}
_SET: Final = {
    "temperature": (34.0, 38.5, 36.5),
    "pH": (6.6, 7.2, 7.0),
    "stirring": (100.0, 250.0, 175.0),
}


def study_culture() -> Process:
    """The simulated fed-batch: one feed between samples, three set-points."""
    molar = ("Glc", "Gln", "Amm", "Lac")
    return Process(
        name="fed_batch_study",
        description="Simulated fed-batch of several products, fed between samples",
        volume_L=0.25,
        biomass="VCD",
        quantities=tuple(
            Quantity(
                name=name,
                unit="mmol/L" if name in molar else canonical_unit(name),
                hi=_HI[name],
                cv=0.0,
                floor=_FLOOR[name],
            )
            for name in FED_BATCH_SPECIES
        ),
        controls=(
            *(
                Control(
                    name=name,
                    unit=CANONICAL_UNITS.get(name, "1"),
                    role="environment",
                    lo=lo,
                    hi=hi,
                    default=default,
                )
                for name, (lo, hi, default) in _SET.items()
            ),
            Control(name="feed_rate", unit="L/d", role="flow", lo=0.0, hi=0.01, default=0.0),
        ),
        streams=(Stream(name="feed", direction="in", flow="feed_rate", carries=dict(_FEED)),),
    )


def write_study(data: StudyData, folder: Path | str) -> tuple[Path, Path]:
    """Write a simulated study as a campaign table and the culture it is of.

    No analyser prints a concentration below 0: where noise has made one, 0 is written.

    Args:
        data: The study.
        folder: Made if it does not exist.

    Returns:
        Table and culture.

    Raises:
        DataError: If the folder holds one already.
    """
    target = Path(folder)
    table, culture = target / TABLE, target / CULTURE
    for path in (table, culture):
        if path.exists():
            raise DataError(f"{path} exists already; give another folder.")
    target.mkdir(parents=True, exist_ok=True)
    process = study_culture()
    runs = [
        run
        for role, part in zip(("historic", "novel", "test"), data[:3], strict=True)
        for run in _trajectories(part, data.products, role)
    ]
    write_described(runs, table, process)
    culture.write_text(process.to_toml(), encoding="utf-8")
    return table, culture


def write_example(folder: Path | str, *, seed: int = 0) -> tuple[Path, Path]:
    """Write a small simulated study: five historic products, one novel.

    Args:
        folder: Made if it does not exist.
        seed: Decides products and runs.

    Returns:
        Table and culture.
    """
    data = simulate_study(jax.random.key(seed), n_historic=8, n_novel=8, n_test=20)
    return write_study(data, folder)


def _trajectories(runs: FedBatchRuns, products: tuple[str, ...], role: str) -> list[Trajectory]:
    arrays = [np.asarray(v) for v in runs]
    out = []
    for i in range(len(arrays[0])):
        one = FedBatchRuns(*(v[i] for v in arrays))
        hours = one.days * 24.0
        totals = np.full((len(hours), len(STREAM_TOTALS)), np.nan)
        drawn = one.volume_before - one.volume_after
        totals[1:, STREAM_TOTALS.index("V_sample_L")] = drawn[:-1]
        fed_L = one.volume_before[1:] - one.volume_after[:-1]
        rate = np.append(fed_L / np.diff(one.days), 0.0)
        out.append(
            Trajectory(
                species=np.maximum(one.measured, 0.0),
                controls=np.concatenate([one.controls, rate[:, None]], axis=1),
                volume_L=one.volume_before,
                days=np.round(one.days).astype(int),
                species_names=FED_BATCH_SPECIES,
                control_names=(*FED_BATCH_CONTROLS, "feed_rate"),
                run_id=f"{role}-{i + 1:03d}",
                clone_id=products[int(one.product)],
                times_h=hours,
                stream_totals=totals,
            )
        )
    return out
