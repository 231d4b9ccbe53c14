"""`perfusio-jax transfer-study`: a campaign table of several cell lines in, a comparison out."""

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, NamedTuple

import jax
import numpy as np

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax._core.text import shown
from perfusio_jax.connectors import completed, read_culture
from perfusio_jax.connectors.files.parts import Tables, title_of
from perfusio_jax.connectors.files.study_folder import is_study_folder, read_study_folder
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.embedding import (
    COUNTS,
    StudyData,
    check_study,
    fed_batch_runs,
    markdown,
    studied,
    study_config,
    study_repeat,
    summarise,
)
from perfusio_jax.process import Process
from perfusio_jax.simulator import FedBatchRuns
from perfusio_jax.states import Trajectory

_MANY: Final = 8


class Sides(NamedTuple):
    """Runs of a study by what they are for."""

    historic: list[Trajectory]
    novel: list[Trajectory]
    test: list[Trajectory]


def run_study(
    campaign: Tables,
    out: Path | str,
    *,
    novel: str | None = None,
    tests: Sequence[str] = (),
    culture: str | None = None,
    rules: FileRules | None = None,
    fill_down: bool = False,
    repeats: int = 5,
    counts: tuple[int, ...] = (),
    dim: int = 3,
    own_noise: bool = False,
    effort: float = 1.0,
    seed: int = 0,
    console: Any,
) -> dict[str, Any]:
    """Run the transfer study on a campaign and write table and summary as it goes.

    Args:
        campaign: The table, several, or a folder of them; one line is a sample, and `clone_id` says
            whose. A folder of the earlier form (`conditions.csv`, `runs/`) is read, too.
        out: Gets `transfer_records.jsonl` (one line per model, written at once),
            `transfer_table.md` and `transfer_summary.json`.
        novel: The cell line that is new.
        tests: Runs of it that are forecast and never trained on, by name or pattern (`test-*`);
            the last half of them if not said.
        culture: Which culture; see `read_culture`.
        rules: How the table is read.
        fill_down: Whether a blank set-point means that the one before it stayed.
        repeats: Repeats, each with the novel runs in another order.
        counts: Numbers of novel runs; the published ones that the data allow by default.
        dim: Length of the embedding vectors.
        own_noise: Signal and noise variance per species instead of one for all.
        effort: Factor on the evaluations of every search [-].
        seed: Decides orders and starts.
        console: Where to print.

    Returns:
        The summary.

    Raises:
        DataError: If the table is not one of fed-batches of two cell lines or more.
        ConfigError: If the settings do not fit the data.
    """
    data = _read(campaign, novel, tests, culture, rules, fill_down, console)
    available = int(data.novel.measured.shape[0])
    counts = counts or tuple(n for n in COUNTS if n <= available) or (available,)
    config = study_config(counts=counts, dim=dim, own_noise=own_noise, effort=effort)
    check_study(data, config.counts)
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    with open(target / "transfer_records.jsonl", "w", encoding="utf-8") as handle:
        for repeat in range(repeats):
            key = jax.random.fold_in(jax.random.key(seed), repeat)
            for record in study_repeat(data, config, key=key):
                records.append({"repeat": repeat, **record._asdict()})
                handle.write(json.dumps(records[-1]) + "\n")
                handle.flush()
                told = ", ".join(
                    f"{name} {error:.3f}"
                    for name, error in zip(data.species, record.errors, strict=True)
                )
                console.print(
                    f"repeat {repeat + 1} of {repeats}, {record.n_runs} runs, {record.method}: "
                    f"{told}",
                    soft_wrap=True,
                )
    of = {"species": data.species, "reported": data.species}
    table, summary = markdown(records, **of, with_published=False), summarise(records, **of)
    summary.update(products=list(data.products), dim=dim, own_noise=own_noise, seed=seed)
    (target / "transfer_table.md").write_text(shown(table), encoding="utf-8")
    text = json.dumps(summary, indent=1, sort_keys=True)
    (target / "transfer_summary.json").write_text(text, encoding="utf-8")
    console.print(table, markup=False)
    console.print(f"results: {target}", soft_wrap=True)
    return summary


def _read(
    campaign: Tables,
    novel: str | None,
    tests: Sequence[str],
    culture: str | None,
    rules: FileRules | None,
    fill_down: bool,
    console: Any,
) -> StudyData:
    given = [campaign] if isinstance(campaign, str | Path) else list(campaign)
    if len(given) == 1 and is_study_folder(Path(given[0])):
        found = read_study_folder(Path(given[0]), rules)
        console.print(f"{len(found.trajectories)} runs of {title_of(given)}, by conditions.csv.")
        novel = found.novel if novel is None else novel
        tests = tests or found.tests
        return study_of(found.trajectories, found.process, novel, tests, console=console)
    table = read_culture(campaign, culture, rules)
    if table.process is None:
        raise ConfigError(
            f"{title_of(campaign)} is taken for CHO perfusion; a transfer study is of batches and "
            "fed-batches. Name the culture: --process with a file, a built-in name, or table."
        )
    runs = completed(table, fill_down=fill_down, console=console)
    return study_of(runs, table.process, novel, tests, console=console)


def study_of(
    runs: Sequence[Trajectory],
    process: Process,
    novel: str | None,
    tests: Sequence[str],
    *,
    console: Any,
) -> StudyData:
    """The study that runs of several cell lines are.

    Args:
        runs: Runs with every set-point.
        process: Their culture.
        novel: The cell line that is new.
        tests: Its test runs, by name or pattern; the last half of them if empty.
        console: Where to print what was decided.

    Raises:
        ConfigError: If the novel line or its test runs are not said or not there.
        DataError: If there are no two cell lines.
    """
    sides = _sides(runs, novel, tests, console)
    species = studied(runs, process)
    left_out = [q for q in process.readings if q not in species]
    if left_out:
        console.print(
            f"not followed: {', '.join(left_out)}; a study follows what is carried and was read.",
            soft_wrap=True,
        )
    whose = dict.fromkeys(run.clone_id for run in sides.historic)
    products = (*whose, sides.novel[0].clone_id)
    length = max(run.n_days for run in runs)
    historic, new, test = (
        fed_batch_runs(side, process, species=species, products=products, n_samples=length)
        for side in sides
    )
    is_whole: np.ndarray = np.all(np.isfinite(np.asarray(test.measured[:, 0])), axis=1)
    holed = [run.run_id for run, whole in zip(sides.test, is_whole, strict=True) if not whole]
    if holed:
        raise DataError(
            f"test run {', '.join(holed[:_MANY])} misses a reading of {', '.join(species)} in its "
            "first sample, where it starts."
        )
    _tell_gaps(sides, (historic, new, test), console)
    return StudyData(historic, new, test, products, species)


def _tell_gaps(sides: Sides, parts: Sequence[FedBatchRuns], console: Any) -> None:
    """Say how many intervals nothing can be learned from."""
    n_all, n_whole = 0, 0
    for runs, arrays in zip(sides[:2], parts, strict=False):
        seen: np.ndarray = np.all(np.isfinite(np.asarray(arrays.measured)), axis=2)
        n_all += sum(run.n_days - 1 for run in runs)
        n_whole += int(np.sum(seen[:, 1:] & seen[:, :-1]))
    if n_whole < n_all:
        console.print(
            f"left out: {n_all - n_whole} of {n_all} intervals to learn from, which lack a reading "
            "at one end.",
            soft_wrap=True,
        )


def _sides(
    runs: Sequence[Trajectory], novel: str | None, tests: Sequence[str], console: Any
) -> Sides:
    counts: dict[str, int] = {}
    for run in runs:
        counts[run.clone_id] = counts.get(run.clone_id, 0) + 1
    listed = ", ".join(f"{name} ({n} runs)" for name, n in counts.items())
    if len(counts) < 2:
        raise DataError(
            f"all {len(runs)} runs are of one cell line, {listed}; a study needs several. They are "
            "told apart by a column clone_id; --map says which column that is."
        )
    if novel is None or novel not in counts:
        said = "is not said" if novel is None else f"is said to be {novel!r}"
        near = "" if novel is None else did_you_mean([novel], counts)
        raise ConfigError(
            f"the new cell line {said}{near}; there are {listed}. Say --novel with one of them."
        )
    mine = [run for run in runs if run.clone_id == novel]
    names = [run.run_id for run in mine]
    unmatched = [text for text in tests if not any(fnmatchcase(n, text) for n in names)]
    if unmatched:
        raise ConfigError(
            f"--test-run {', '.join(unmatched)}: no run of {novel} has such a name; there are "
            f"{', '.join(names[:_MANY])}{' and more' if len(names) > _MANY else ''}."
        )
    if tests:
        is_test = [any(fnmatchcase(name, text) for text in tests) for name in names]
    else:
        is_test = [k >= (len(mine) + 1) // 2 for k in range(len(mine))]
        kept = ", ".join(n for n, test in zip(names, is_test, strict=True) if test)
        console.print(
            f"test runs, the last half of {novel}: {kept or 'none'}; --test-run says others.",
            soft_wrap=True,
        )
    sides = Sides(
        [run for run in runs if run.clone_id != novel],
        [run for run, test in zip(mine, is_test, strict=True) if not test],
        [run for run, test in zip(mine, is_test, strict=True) if test],
    )
    if not sides.novel or not sides.test:
        raise ConfigError(
            f"{len(mine)} run(s) of {novel}, {len(sides.test)} of them for testing; at least one "
            "must be left to train on, and one to test."
        )
    return sides
