"""Why a decision was made, as names and plain numbers, ready for a record."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from perfusio_jax._core import FORECAST_SPECIES
from perfusio_jax.bed.goal.constraints import Chance, each_constraint
from perfusio_jax.bed.goal.criteria import ProcessOFV
from perfusio_jax.bed.goal.objectives import TargetTrackingOFV
from perfusio_jax.bed.goal.steps import steps_of
from perfusio_jax.bed.policy.diagnostics import RecommendInfo

INCUMBENTS = ("set-points in force", "last plan", "set-points in force and last plan together")
"""What a recommendation was compared with."""


def explain(
    info: RecommendInfo,
    ofv: TargetTrackingOFV | ProcessOFV,
    control_names: Sequence[str],
    chance: Chance = None,
    *,
    acquisition: str | None = None,
    names: Sequence[str] = FORECAST_SPECIES,
) -> dict[str, Any]:
    """Diagnostics of a decision as names and plain numbers.

    Args:
        info: From `recommend`.
        ofv: Targets or criteria.
        control_names: Names of the set-points, in array order.
        chance: Constraints of the decision.
        acquisition: Name of the acquisition, which then is said with what it compared with.
        names: What is forecast.

    Returns:
        Nested dictionary, ready for JSON. Where the steps are no days, "forecast_hours" has the
        time of each row of a forecast [h]. "ref_point" and "weights" stand under "acquisition"
        where there are any, by target or criterion in scaled score [-].
    """

    def which(mask: Any) -> list[str]:
        return [name for name, held in zip(control_names, np.asarray(mask), strict=True) if held]

    def by_control(values: Any) -> dict[str, float]:
        return dict(zip(control_names, np.asarray(values, float).tolist(), strict=True))

    new, old = info.recommended, info.unchanged
    constraints = [
        {
            "limit": f"{limit.label} {float(limit.minimum):g}",
            "probability_asked": float(limit.probability),
            "probability": float(new.constraint_probability[k]),
            "probability_unchanged": float(old.constraint_probability[k]),
            "score": float(new.constraint_scores[k]),
            "score_unchanged": float(old.constraint_scores[k]),
        }
        for k, limit in enumerate(each_constraint(chance))
    ]
    alternatives = [
        {
            "controls": by_control(info.alternative_points[k]),
            "acquisition": float(info.alternative_values[k]),
            "ofv": float(info.alternatives.ofv[k]),
            "viability_probability": float(info.alternatives.probability_kept[k]),
        }
        for k in range(len(info.alternative_values))
        if np.isfinite(info.alternative_values[k])
    ]
    outside, slow = np.asarray(info.is_outside), np.asarray(info.at_rate_limit)
    reached, underway = outside & ~slow, outside & slow
    hours = steps_of(ofv)
    return {
        **({} if hours is None else {"forecast_hours": np.cumsum(hours).tolist()}),
        "targets": _parts_in_words(info, ofv),
        "constraints": constraints,
        "alternatives": alternatives,
        "ofv_gradient": by_control(info.gradient),
        "forecast_unchanged": {
            "mean": by_species(old.mean, names),
            "q10": by_species(old.q10, names),
            "q90": by_species(old.q90, names),
        },
        "ofv": float(new.ofv),
        "ofv_unchanged": float(old.ofv),
        "viability_probability": float(new.probability_kept),
        "viability_probability_unchanged": float(old.probability_kept),
        **({} if acquisition is None else {"acquisition": _acquisition(info, ofv, acquisition)}),
        "incumbent": INCUMBENTS[int(info.incumbent)],
        "move_gains": by_control(info.move_gains),
        "at_lower_bound": which(info.at_lower),
        "at_upper_bound": which(info.at_upper),
        "at_rate_limit": which(info.at_rate_limit),
        "linear_constraints_active": np.asarray(info.linear_active).tolist(),
        "is_fallback": bool(info.is_fallback),
        "remarks": _remarks(info, constraints, (which(reached), which(underway))),
        "search": {
            "n_converged": int(info.search.n_converged),
            "n_restarts": int(info.search.codes.shape[0]),
            "n_duplicates": int(info.search.n_duplicates),
            "n_evals": int(info.search.n_evals),
            "n_raw_nonfinite": int(info.search.n_raw_nonfinite),
            "is_flat": bool(info.search.is_flat),
        },
    }


def _acquisition(
    info: RecommendInfo, ofv: TargetTrackingOFV | ProcessOFV, name: str
) -> dict[str, Any]:
    """Which acquisition it was, and the numbers that belong to it."""
    said: dict[str, Any] = {"name": name}
    for key, values in (("ref_point", info.ref_point), ("weights", info.weights)):
        if len(values):
            said[key] = dict(zip(labels_of(ofv), np.asarray(values, float).tolist(), strict=True))
    return said


def labels_of(ofv: TargetTrackingOFV | ProcessOFV) -> list[str]:
    """Names of the targets or criteria; where two are of one species, with their number.

    Args:
        ofv: Objective.
    """
    if isinstance(ofv, ProcessOFV):
        names = [c.label for c in ofv.criteria]
    else:
        names = [t.species for t in ofv.targets]
    return [n if names.count(n) == 1 else f"{n} ({k})" for k, n in enumerate(names, start=1)]


def _remarks(
    info: RecommendInfo, constraints: list[dict[str, Any]], outside: tuple[list[str], list[str]]
) -> list[str]:
    """What was fallen back to and what could not be had, in sentences."""
    said = []
    if bool(info.is_fallback):
        said.append(
            "No forecast was finite: the set-points in force are kept, brought inside the limits."
        )
        return said
    if bool(info.search.is_flat):
        said.append("No set-points differ in worth: the answer is only one that keeps the limits.")
    if not bool(info.is_passed):
        said.append(
            "Neither the set-points in force nor the last plan are better than the reference point "
            "for every target: everything above it counts as improvement, nothing below it."
        )
    if int(info.search.n_raw_nonfinite):
        lost = int(info.search.n_raw_nonfinite)
        said.append(f"{lost} points looked at had no finite forecast and were left out.")
    reached, underway = outside
    if reached:
        said.append(f"Outside the limits in force and led inside: {', '.join(reached)}.")
    if underway:
        said.append(
            "Outside the limits in force and led towards them as fast as the rate limit allows: "
            f"{', '.join(underway)}."
        )
    for limit in constraints:
        if limit["probability"] < limit["probability_asked"]:
            said.append(
                f"{limit['limit']} is kept with probability {limit['probability']:.2f} only, asked "
                f"was {limit['probability_asked']:g}."
            )
    return said


def _parts_in_words(
    info: RecommendInfo, ofv: TargetTrackingOFV | ProcessOFV
) -> list[dict[str, Any]]:
    """What each target, or each criterion, contributes."""
    new, old = info.recommended.target_errors, info.unchanged.target_errors
    if isinstance(ofv, ProcessOFV):
        return [
            {"criterion": c.label, "cost": float(new[k]), "cost_unchanged": float(old[k])}
            for k, c in enumerate(ofv.criteria)
        ]
    return [
        {
            "species": t.species,
            "target": np.asarray(t.target).tolist(),
            "expected_squared_error": float(new[k]),
            "expected_squared_error_unchanged": float(old[k]),
        }
        for k, t in enumerate(ofv.targets)
    ]


def by_species(values: Any, names: Sequence[str] = FORECAST_SPECIES) -> dict[str, list[float]]:
    """A table (steps, species) as one list per species.

    Args:
        values: What is forecast last.
        names: Names of its columns.

    Returns:
        One value per step and species.
    """
    table = np.asarray(values)
    return {name: table[:, k].tolist() for k, name in enumerate(names)}
