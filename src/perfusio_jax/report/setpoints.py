"""Set-points of recorded runs: what was never varied, and what would be repeated."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from perfusio_jax._core.text import shown_unit
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.states import Trajectory
from perfusio_jax.states.setpoints import setpoint_table


def never_varied(runs: Sequence[Trajectory], names: Sequence[str]) -> dict[str, float]:
    """Controls that had one value in all runs: the runs do not say what they do.

    Args:
        runs: Runs with every control.
        names: Controls looked at.

    Returns:
        The values, by name.
    """
    parts = [setpoint_table(run, names)[: max(run.n_days - 1, 1)] for run in runs]
    values = np.concatenate(parts)
    found = {}
    for name in names:
        column = values[:, list(names).index(name)]
        middle = float(np.mean(column))
        if np.ptp(column) <= 1e-6 * max(abs(middle), 1.0):
            found[name] = middle
    return found


def changed_within(runs: Sequence[Trajectory], names: Sequence[str]) -> list[str]:
    """Controls that most runs changed on the way, by a tenth of what all of them had.

    Args:
        runs: Runs with every control.
        names: Controls looked at.
    """
    parts = [setpoint_table(run, names)[: max(run.n_days - 1, 1)] for run in runs]
    span = np.ptp(np.concatenate(parts), axis=0)
    share = np.mean([np.ptp(part, axis=0) > 0.1 * span for part in parts], axis=0)
    return [name for name, one in zip(names, share, strict=True) if one > 0.5]


def beyond_runs(
    runs: Sequence[Trajectory],
    U: np.ndarray,
    names: Sequence[str],
    unit_of: Callable[[str], str] = canonical_unit,
) -> list[str]:
    """Sentences about proposals that go further than any run so far, by more than a tenth.

    A range somebody wrote down, or one that any vessel has, is no sign that the model knows what
    happens there.

    Args:
        runs: Runs with every control.
        U: Proposed recipes (q, M), or what is set when (q, H, M).
        names: Controls looked at, in the order of the last axis.
        unit_of: Unit of a control.
    """
    parts = [setpoint_table(run, names)[: max(run.n_days - 1, 1)] for run in runs]
    seen, asked = np.concatenate(parts), np.asarray(U, float).reshape(-1, len(names))
    lines = []
    for k, name in enumerate(names):
        low, high = float(seen[:, k].min()), float(seen[:, k].max())
        least, most = float(asked[:, k].min()), float(asked[:, k].max())
        more = 0.1 * (high - low) + 1e-9
        if least < low - more or most > high + more:
            unit = shown_unit(unit_of(name))
            lines.append(
                f"{name}: the runs so far had {low:.4g} to {high:.4g} {unit}, the runs proposed go "
                f"from {least:.4g} to {most:.4g}: nothing but the model's shape says what happens "
                "there. A narrower range in the process file, or --set, keeps them inside."
            )
    return lines


def moved_unseen(
    constant: Mapping[str, float],
    U: np.ndarray,
    names: Sequence[str],
    fixed: Sequence[str],
    unit_of: Callable[[str], str] = canonical_unit,
) -> list[str]:
    """Sentences about proposals that move what no run has varied.

    Args:
        constant: From `never_varied`.
        U: Proposed recipes, one per row.
        names: Controls, in the order of the columns.
        fixed: Controls that were held on request.
        unit_of: Unit of a control.
    """
    lines = []
    for name, value in constant.items():
        column = U[:, list(names).index(name)]
        if name in fixed or np.allclose(column, value, rtol=1e-6, atol=1e-9):
            continue
        low, high = float(column.min()), float(column.max())
        to = f"{low:.4g}" if high - low <= 1e-6 * abs(high) else f"{low:.4g} to {high:.4g}"
        unit = shown_unit(unit_of(name))
        lines.append(
            f"{name} was {value:.4g} {unit} in all runs so far: what it does is "
            f"known from the mechanism only, not from these runs. The runs proposed move it to "
            f"{to}; --set {name}={value:.6g} holds it."
        )
    return lines


def repeated(
    U: np.ndarray, recipes: np.ndarray, run_ids: Sequence[str], span: np.ndarray
) -> list[str]:
    """Sentences about proposals that are the recipe of a run already made.

    Args:
        U: Proposed recipes, one per row.
        recipes: Recipes of the runs so far.
        run_ids: Their names.
        span: Width of the design space, by control.
    """
    scale = np.where(span > 0, span, 1.0)
    lines = []
    for k, u in enumerate(U, start=1):
        same = np.flatnonzero((np.abs(recipes - u) <= 1e-3 * scale).all(axis=1))
        if same.size:
            lines.append(f"Run {k} of those proposed repeats run {run_ids[same[0]]}.")
    return lines
