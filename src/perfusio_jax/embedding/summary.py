"""Tables and paired tests of transfer studies."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from perfusio_jax._core import DataError
from perfusio_jax.embedding.study import COUNTS, METHODS, PUBLISHED
from perfusio_jax.simulator import FED_BATCH_SPECIES

REPORTED: Final[tuple[str, ...]] = ("Titer", "VCD")
"""Species of the published table."""

_LABELS: Final[Mapping[str, str]] = {
    "none": "novel product only",
    "one-hot": "one-hot",
    "embedding": "embedding",
}


def _by_model(records: Iterable[Mapping[str, Any]]) -> dict[tuple[int, str], dict[int, np.ndarray]]:
    """Errors by (number of runs, method), then by repeat."""
    out: dict[tuple[int, str], dict[int, np.ndarray]] = {}
    for r in records:
        place = out.setdefault((int(r["n_runs"]), str(r["method"])), {})
        place[int(r["repeat"])] = np.asarray(r["errors"], float)
    if not out:
        raise DataError("there is no record to summarise; the study has not finished a model yet.")
    return out


def paired_test(better: np.ndarray, other: np.ndarray) -> float:
    """One-sided Wilcoxon signed-rank test that the first errors are lower, over repeats.

    Args:
        better: Errors of the method expected to win.
        other: Errors of the other, same repeats.

    Returns:
        p-value; NaN with fewer than two repeats.
    """
    from scipy.stats import wilcoxon

    if len(better) < 2:
        return float("nan")
    if np.array_equal(better, other):
        return 1.0
    return float(wilcoxon(better, other, alternative="less")[1])  # pyright: ignore


def summarise(
    records: Iterable[Mapping[str, Any]],
    *,
    species: Sequence[str] = FED_BATCH_SPECIES,
    reported: Sequence[str] = REPORTED,
) -> dict[str, Any]:
    """Numbers of a study.

    Args:
        records: Fields of `Record` and the number of the repeat.
        species: What the errors are of, in their order.
        reported: Which of them to report.

    Returns:
        Per species: mean and median over repeats by method, repeats, and p-values of the
        embedding against the other methods, each by number of runs.

    Raises:
        DataError: If there is no record.
    """
    table = _by_model(records)
    counts = sorted({n for n, _ in table})
    out: dict[str, Any] = {"counts": counts, "species": {}}
    for name in reported:
        j = list(species).index(name)
        entry: dict[str, Any] = {}
        for method in METHODS:
            errors = [[v[j] for v in table.get((n, method), {}).values()] for n in counts]
            if any(errors):
                entry[method] = {
                    "mean": [float(np.mean(e)) if e else None for e in errors],
                    "median": [float(np.median(e)) if e else None for e in errors],
                    "repeats": [len(e) for e in errors],
                }
        for other in ("one-hot", "none"):
            values = []
            for n in counts:
                mine, theirs = table.get((n, "embedding"), {}), table.get((n, other), {})
                shared = sorted(set(mine) & set(theirs))
                a = np.asarray([mine[r][j] for r in shared])
                b = np.asarray([theirs[r][j] for r in shared])
                p = paired_test(a, b)
                values.append(
                    {"p": p if np.isfinite(p) else None, "wins": int(np.sum(a < b)), "of": len(a)}
                )
            entry[f"embedding_vs_{other}"] = values
        out["species"][name] = entry
    return out


def markdown(
    records: Iterable[Mapping[str, Any]],
    *,
    species: Sequence[str] = FED_BATCH_SPECIES,
    reported: Sequence[str] = REPORTED,
    with_published: bool = True,
) -> str:
    """The table of a study: median relative error by method and number of runs.

    Args:
        records: As for `summarise`.
        species: What the errors are of, in their order.
        reported: Which of them to report.
        with_published: Put the published figures beside ours.

    Returns:
        Markdown. Each cell is the mean over repeats, then the median in brackets, then the
        published figure where there is one.

    Raises:
        DataError: If there is no record.
    """
    summary = summarise(records, species=species, reported=reported)
    counts = summary["counts"]
    lines = ["| runs | " + " | ".join(str(n) for n in counts) + " |"]
    lines.append("| --- |" + " ---: |" * len(counts))
    for name, entry in summary["species"].items():
        for method in METHODS:
            if method not in entry:
                continue
            cells = []
            for k, n in enumerate(counts):
                mean, median = entry[method]["mean"][k], entry[method]["median"][k]
                cell = "-" if mean is None else f"{mean:.3f} ({median:.3f})"
                if with_published and n in COUNTS and (name, method) in PUBLISHED:
                    cell += f", {PUBLISHED[name, method][COUNTS.index(n)]:.3f}"
                cells.append(cell)
            lines.append(f"| {name}, {_LABELS[method]} | " + " | ".join(cells) + " |")
        for other in ("one-hot", "none"):
            tests = entry[f"embedding_vs_{other}"]
            cells = [
                "-" if t["p"] is None else f"p = {t['p']:.1e}, {t['wins']} of {t['of']}"
                for t in tests
            ]
            lines.append(
                f"| {name}, embedding below {_LABELS[other]} | " + " | ".join(cells) + " |"
            )
    return "\n".join(lines) + "\n"
