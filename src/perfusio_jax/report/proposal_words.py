"""A proposal in words: what is expected, what limits cost, what the runs so far say."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from perfusio_jax._core.text import shown_unit
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.bed.goal.criteria import FinalValue, ProcessOFV
from perfusio_jax.states import Trajectory


def in_words(
    found: Mapping[str, Any],
    U: np.ndarray,
    names: list[str],
    unit_of: Callable[[str], str] = canonical_unit,
) -> list[str]:
    """The explanation, one sentence or two per line."""
    lines = goals_in_words(found)
    if found["fixed"]:
        parts = [f"{n} {U[0, names.index(n)]:.4g} {shown_unit(unit_of(n))}" for n in found["fixed"]]
        lines.append(f"fixed in every run: {', '.join(parts)}")
    guess = best_guess(found)
    for k, (run, u) in enumerate(zip(found["runs"], U, strict=True), start=1):
        recipe = ", ".join(f"{n} {v:.4g}" for n, v in zip(names, u, strict=True))
        values = ", ".join(
            f"{label} {run['expected'][label]:.4g} "
            f"({run['q10'][label]:.4g} to {run['q90'][label]:.4g})"
            for label in run["expected"]
        )
        held = [f"{n} at its lower bound" for n in run["at_lower_bound"]]
        held += [f"{n} at its upper bound" for n in run["at_upper_bound"]]
        kept = ", ".join(f"{p:.2f}" for p in run["probability_kept"])
        lines.append(f"{k}. {recipe}{' (best guess)' if k == guess else ''}")
        short = "" if run["is_kept"] else ", less than was asked"
        lines.append(f"   {values}; limits kept with probability {kept}{short}")
        if held:
            lines.append(f"   {', '.join(held)}")
    return [*lines, *found["remarks"]]


def goals_in_words(found: Mapping[str, Any]) -> list[str]:
    """What is best expected by each goal, and what each limit costs."""
    lines = [_best_in_words(found, label) for label in found["best_expected"]]
    for limit in found["constraints"]:
        text = (
            f"{limit['limit']}{' on every day' if limit['is_daily'] else ''} with probability "
            f"{limit['probability']:g}: "
            f"{100 * limit['share_of_space']:.0f} % of the design space keeps it"
        )
        for label, value in limit["best_without"].items():
            best = found["best_looked_at"][label]
            if _differ(value, best):
                text += f"; without it {label} could be {value:.4g}"
            else:
                text += f"; it costs nothing in {label}"
        lines.append(text)
    return lines


def best_guess(found: Mapping[str, Any]) -> int | None:
    """Number of the proposed run that is expected to be best; None for several goals."""
    if len(found["best_expected"]) != 1:
        return None
    ((label, best),) = found["best_expected"].items()
    ranks = [k for k, run in enumerate(found["runs"], 1) if run["is_kept"]]
    return next((k for k in ranks if found["runs"][k - 1]["expected"][label] == best), None)


def _best_in_words(found: Mapping[str, Any], label: str) -> str:
    text = f"{label}: best expected of the runs proposed {found['best_expected'][label]:.4g}"
    looked = found["best_looked_at"][label]
    if len(found["best_expected"]) == 1 and _differ(looked, found["best_expected"][label]):
        text += f" (of all recipes looked at {looked:.4g})"
    if found["best_of_runs_so_far"]:
        text += f"; of the runs so far {found['best_of_runs_so_far'][label]:.4g}"
        measured = found.get("best_measured", {}).get(label)
        if measured:
            text += f", {measured[0]:.4g} as measured (run {measured[1]})"
    return text


def _differ(a: float, b: float) -> bool:
    return abs(a - b) > 1e-3 * max(abs(b), 1e-9)


def best_measured(
    trajectories: Sequence[Trajectory], ofv: ProcessOFV
) -> dict[str, tuple[float, str]]:
    """Best reading at the end of a run, of goals that are a reading on the last day.

    Args:
        trajectories: Runs so far.
        ofv: Goal; only runs that last as long as its horizon count.

    Returns:
        Reading and name of the run, by goal; nothing where no run has such a reading.
    """
    found = {}
    for criterion in ofv.criteria:
        if not isinstance(criterion, FinalValue) or criterion.last_days != 1:
            continue
        species = criterion.species
        ends = []
        for run in trajectories:
            if species in run.species_names and round(float(run.times_h[-1]) / 24) == ofv.horizon:
                reading = float(run.host_readings((species,))[-1, 0])
                if math.isfinite(reading):
                    ends.append((reading, run.run_id))
        if ends:
            found[criterion.label] = max(ends, key=lambda end: criterion.direction * end[0])
    return found
