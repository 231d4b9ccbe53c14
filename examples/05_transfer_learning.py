"""A new cell line with two runs of data: what earlier lines are worth to it.

Every cell line is a vector, and how close two vectors lie is how much the lines learn from each
other. The vectors are found together with the kernel of the process (Hutter et al. 2021). Three
models forecast fed-batches of a new line from their first sample: one that knows only its own
two runs, one that tells lines apart by a flag (one-hot coding), and one with learned vectors. On
a table of your own, without Python:

    perfusio-jax transfer-study runs.csv --process mine.toml --novel "line 7"
"""

# %%
import sys
from pathlib import Path

import perfusio_jax

perfusio_jax.enable_quick_compile()  # it is over soon
perfusio_jax.enable_x64()

import jax
import numpy as np

from perfusio_jax.embedding import METHODS, Record, simulate_study, study_config, study_repeat
from perfusio_jax.simulator import FED_BATCH_SPECIES
from perfusio_jax.viz import PALETTE, save_figure
from perfusio_jax.viz.parts import series_style
from perfusio_jax.viz.theme import describe, new_figure, themed

SHOWN = ("VCD", "Titer")

# %% [markdown]
# ## Lines that resemble each other
#
# `simulate_study` draws cell lines from a family: some eat lactate and some do not, and the new
# one is of the first kind. All of them run fed-batches with other feeds, temperatures and pH.
# Only the new line has further runs that nobody trains on; every model is judged by those.
#
# ## Three models
#
# `study_repeat` fits all three with the same kernel, the same rows and the same effort. The error
# is the median over runs of |error| over the spread between runs on that day, averaged over days:
# 1 is what somebody reaches who says "as always".


# %%
@themed
def draw(records: list[Record], counts: tuple[int, ...], path: Path) -> None:
    """Error against the number of runs of the new line."""
    figure = new_figure(8.4, 3.6, "What earlier cell lines are worth to a new one")
    grid = figure.subplots(1, len(SHOWN), sharey=True)
    for axes, name in zip(grid, SHOWN, strict=True):
        column = FED_BATCH_SPECIES.index(name)
        for k, method in enumerate(METHODS):
            found = [r.errors[column] for r in records if r.method == method]
            words = {"none": "its own runs alone"}.get(method, method)
            style = series_style(k)
            axes.plot(counts, found, marker="o^s"[k], label=words, **style)
        axes.axhline(1.0, color=PALETTE["muted"], lw=1.0)
        axes.set_title(name)
        axes.set_xticks(counts)
        axes.set_xlabel("Runs of the new line")
    grid[0].set_yscale("log")
    ticks = [0.2, 0.3, 0.5, 1.0, 2.0, 5.0]
    grid[0].set_yticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    grid[0].set_yticks([], minor=True)
    grid[0].set_ylabel("Median relative error [-]")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=3)
    text = "Error of three models of a new cell line, by the number of its runs; 1 is no skill."
    save_figure(describe(figure, text, is_printed=False), path)


# %% [markdown]
# ## All of it
#
# This is one draw of lines and runs, and a model of two runs alone may fail badly. What remains
# over many draws stands in the page on transfer.


# %%
def main(
    folder: Path,
    counts: tuple[int, ...] = (2, 4),
    n_lines: tuple[int, int] = (2, 3),
    n_historic: int = 10,
    n_test: int = 20,
    effort: float = 0.7,
) -> dict[tuple[str, int], dict[str, float]]:
    """Simulate, fit, compare.

    Args:
        folder: Where `transfer.png` goes.
        counts: Numbers of runs of the new line.
        n_lines: Earlier lines that eat lactate, and that do not.
        n_historic: Runs of each earlier line.
        n_test: Runs of the new line that all are judged by.
        effort: Factor on the iterations of the fits [-].

    Returns:
        By model and number of runs, error by species [-].
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = simulate_study(
        jax.random.key(3),
        n_consuming=n_lines[0],
        n_producing=n_lines[1],
        n_historic=n_historic,
        n_novel=max(counts),
        n_test=n_test,
    )
    print(f"{sum(n_lines)} earlier lines with {n_historic} runs each, one new line")
    config = study_config(counts=counts, effort=effort, max_rows=240)
    records = []
    for record in study_repeat(data, config, key=jax.random.key(4)):
        records.append(record)
        told = ", ".join(
            f"{name} {record.errors[FED_BATCH_SPECIES.index(name)]:.2f}" for name in SHOWN
        )
        print(f"  {record.n_runs} runs, {record.method:9s} error: {told}")
    draw(records, counts, folder / "transfer.png")
    named = {
        (r.method, r.n_runs): dict(zip(FED_BATCH_SPECIES, r.errors, strict=True)) for r in records
    }
    means = {
        method: np.mean([named[method, counts[0]][name] for name in SHOWN]) for method in METHODS
    }
    told = ", ".join(f"{method} {mean:.2f}" for method, mean in means.items())
    print(f"with {counts[0]} runs, mean of both: {told}; another draw of lines tells otherwise")
    return named


if __name__ == "__main__":
    perfusio_jax.enable_compile_cache()  # the next time nothing is compiled again
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/example05"))
