"""Online digital twin on a CSV file: a 14-day run without hardware.

Writes a synthetic file of daily samples, then lets the twin work through it: read a sample,
update its model, forecast, recommend set-points. A file does not obey set-points, so this shows
the twin's side of the loop only; `perfusio-jax demo` closes it.
"""

# %%
import asyncio
import csv
import sys
from pathlib import Path

from rich.console import Console

import perfusio_jax

perfusio_jax.enable_quick_compile()  # it is over soon
perfusio_jax.enable_x64()

from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE, RunConfig
from perfusio_jax.connectors.filesystem import FilesystemStore
from perfusio_jax.report.figures import draw_figures
from perfusio_jax.simulator import CHOSimulator
from perfusio_jax.twin.digital_twin import DigitalTwin

# %% [markdown]
# ## A file of samples
#
# The twin reads any file of one row per sample. This one is written by a simulated reactor.


# %%
def write_samples(path: Path, n_days: int) -> None:
    """Daily samples of a virtual reactor at the centre recipe, gaps and noise included."""
    simulator = CHOSimulator(clone="CloneX", seed=42)

    async def read() -> list[dict[str, float | None]]:
        return [await simulator.read_sample(day) for day in range(n_days)]

    rows = asyncio.run(read())
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["day", *rows[0]])
        for day, row in enumerate(rows):
            writer.writerow([day, *("" if v is None else f"{v:.5g}" for v in row.values())])


# %% [markdown]
# ## The loop
#
# For each day the twin reads the sample, moves its belief, forecasts, decides, checks the
# decision at the gate and hands it over; every third day it learns. Whatever it does stands in
# `audit.jsonl`, what it recommends in `recommendations.csv`, what it forecast in
# `forecasts.parquet`. `perfusio-jax report FOLDER` tells the story, and
# `perfusio-jax figures FOLDER` draws it, as `draw_figures` does here.


# %%
def main(folder: Path, n_days: int = 14, n_paths: int = 64) -> None:
    """Write the file, run the twin, show the last recommendations.

    Args:
        folder: Where samples and records go.
        n_days: Days of the run [d].
        n_paths: Roll-out paths of a decision.
    """
    folder.mkdir(parents=True, exist_ok=True)
    csv_path = folder / "my_data.csv"
    write_samples(csv_path, n_days)
    connector = FilesystemStore(source_path=csv_path)
    run_cfg = RunConfig(
        duration_days=n_days,
        sampling_interval_hours=24.0,
        retrain_every=3,
        acquisition="LogEI",
        n_mc_samples=n_paths,
        allow_write=True,
        seed=0,
    )
    twin = DigitalTwin(
        connector=connector,
        design_space=DEFAULT_AMBR250_DESIGN_SPACE,
        run_config=run_cfg,
        log_dir=folder,
        say=print,
    )
    with twin:
        asyncio.run(twin.run())
    print((folder / "recommendations.csv").read_text(encoding="utf-8").splitlines()[-1])
    print(f"records in {folder}")
    draw_figures([folder], only=("run", "timeline"), out=folder, console=Console(width=200))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/example06"))
