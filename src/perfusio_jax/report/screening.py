"""The screening of learning schemes: train all, rank them, go on after a stop."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import DataError, Result, SimulationError, describe
from perfusio_jax._core.limits import TABLE_BYTES, read_file
from perfusio_jax.metrics import nauc, rank_sum
from perfusio_jax.report.stopping import end_if_asked
from perfusio_jax.report.tracking import Sizes, go_on, slug, write_table
from perfusio_jax.rl import (
    SCENARIOS,
    Problem,
    TrainSettings,
    build,
    scenarios_of,
    screening,
)
from perfusio_jax.rl.reinforce import RUNNING, begin
from perfusio_jax.viz.theme import save_figure
from perfusio_jax.viz.tracking import ranking_figure

EPOCHS: Final = 2400
"""Of each training, if not given."""
_NOTED: Final = ("scenario", "seed", "scheme", "settings", "NAAE", "NAUC")


def run_screening(out: Path, sizes: Sizes, *, seeds: int, console: Any) -> None:
    """The thirteen learning schemes on the four pairs of set-points: 52 trainings per seed.

    Args:
        out: Folder for tables and figures; what is noted in it with the same settings is not
            trained again.
        sizes: Of the trainings; its seed is the first, its epochs 2400 if not given.
        seeds: Seeds.
        console: A rich console.
    """
    table = screening()
    notes = out / "screening_trainings.csv"
    sizes = sizes._replace(epochs=sizes.epochs or EPOCHS)
    if _cut_off(notes):
        console.print(f"{notes}: the last line was cut off in a stop; its training is run again.")
    known = _noted(notes)
    numbers = range(sizes.seed, sizes.seed + seeds)
    how = {
        n: sizes.settings(SCENARIOS[0], "quadratic" if n == "qc" else "saturation") for n in table
    }
    said = {n: _describe(s) for n, s in how.items()}
    jobs = [
        (scenario, seed, name)
        for scenario in scenarios_of(1)
        for seed in numbers
        for name in table
        if (scenario.name, seed, name, said[name]) not in known
    ]
    with console.status("") as status:
        for number, (scenario, seed, name) in enumerate(jobs):
            doing = "running" if number else "compiling"
            status.update(
                f"{doing}: {scenario.name}, seed {seed}, {name} ({number + 1} of {len(jobs)})"
            )
            problem = Problem(*build(scenario), table[name])
            state = begin(problem, how[name], key=jax.random.key(seed))
            while int(state.status) == RUNNING:
                state = go_on(problem, how[name], state)
                end_if_asked()
            if int(state.status) != Result.SUCCESS:
                raise SimulationError(
                    f"{scenario.name}, seed {seed}, {name}: stopped in epoch {int(state.epoch)}: "
                    f"{describe(int(state.status))}"
                )
            error = float(state.history.error[int(state.best_epoch)])
            area = float(jnp.nan_to_num(nauc(state.history.mean_return)))
            known[scenario.name, seed, name, said[name]] = (error, area)
            _note(notes, [scenario.name, seed, name, said[name], error, area])
    rows, every = [], []
    for scenario in scenarios_of(1):
        ranks = []
        for seed in numbers:
            scores = np.array([known[scenario.name, seed, name, said[name]] for name in table])
            ranks.append(np.asarray(rank_sum(jnp.asarray(scores[:, 0]), jnp.asarray(scores[:, 1]))))
            for name, (error, area), rank in zip(table, scores, ranks[-1], strict=True):
                rows.append([scenario.name, seed, name, error, area, float(rank), said[name]])
        every += ranks
        title = f"Screening, {scenario.name}"
        save_figure(
            ranking_figure(list(table), np.stack(ranks, axis=1), title=title),
            out / f"screening_{slug(scenario.name)}.png",
        )
        order = np.argsort(np.mean(ranks, axis=0))
        names = list(table)
        console.print(f"{scenario.name}: best {names[order[0]]}, then {names[order[1]]}")
    title = "Screening, all set-points"
    save_figure(
        ranking_figure(list(table), np.stack(every, axis=1), title=title),
        out / "screening_all.png",
    )
    heads = ["scenario", "seed", "scheme", "NAAE", "NAUC", "rank sum", "settings"]
    write_table(out / "screening", heads, rows, title="Screening of 13 schemes")
    console.print(f"tables and figures: {out}", soft_wrap=True)


def _describe(settings: TrainSettings) -> str:
    """What decides how a scheme is trained, in a cell of a table."""
    precision = "single" if settings.is_single else "double"
    return (
        f"{settings.n_epochs} x {settings.n_episodes}; rate {float(settings.learning_rate):g}; "
        f"floor {float(settings.floor):g}; {precision}"
    )


def _cut_off(path: Path) -> bool:
    """Take away a last line that a stop left without its end."""
    raw = read_file(path, most=TABLE_BYTES) if path.exists() else b""
    if not raw or raw.endswith(b"\n") or b"\n" not in raw:
        return False
    path.write_bytes(raw[: raw.rfind(b"\n") + 1])
    return True


def _noted(path: Path) -> dict[tuple[str, int, str, str], tuple[float, float]]:
    """Scores of trainings that were noted before.

    Raises:
        DataError: Naming the line that cannot be used; none is skipped in silence.
    """
    if not path.exists() or not path.stat().st_size:
        return {}

    def refuse(line: int, why: str) -> DataError:
        return DataError(
            f"{path}, line {line}: {why}. Take the line out (its training is run again), or "
            "choose another folder."
        )

    known = {}
    raw = read_file(path, most=TABLE_BYTES)
    try:
        rows = list(csv.reader(raw.decode("utf-8").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} is not a CSV file: {error}. Take it away (its trainings are run again), or "
            "choose another folder."
        ) from None
    if tuple(rows[0]) != _NOTED:
        raise DataError(
            f"{path}, line 1: the headings are {rows[0]}, not {list(_NOTED)}. Put them right, or "
            "choose another folder."
        )
    if not raw.endswith(b"\n"):
        raise refuse(len(rows), "it is cut off")
    for line, row in enumerate(rows[1:], start=2):
        try:
            name, seed, scheme, how, error, area = row
            scores = float(error), float(area)
        except ValueError:
            raise refuse(line, f"{row} are not the values of {list(_NOTED)}") from None
        if not (np.all(np.isfinite(scores)) and scores[0] > 0.0 and seed.isdigit()):
            raise refuse(line, f"{row} hold scores or a seed that cannot be")
        if known.setdefault((name, int(seed), scheme, how), scores) != scores:
            raise refuse(line, f"{row[:4]} stands in an earlier line with other scores")
    return known


def _note(path: Path, row: Sequence[Any]) -> None:
    """Add the scores of a training."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists() or not path.stat().st_size
    with open(path, "a", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([_NOTED, row] if is_new else [row])
