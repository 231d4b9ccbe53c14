"""Proposed runs in words: what is expected of them, and what held them back."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from perfusio_jax.bed.goal.constraints import Chance, each_constraint
from perfusio_jax.bed.goal.criteria import ProcessOFV
from perfusio_jax.bed.policy.expectations import CampaignInfo


def explain_campaign(
    info: CampaignInfo,
    ofv: ProcessOFV,
    chance: Chance,
    control_names: Sequence[str],
    run_ids: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What is expected of proposed runs and why, as names and plain numbers.

    Args:
        info: From `propose_runs`.
        ofv: What a run is worth.
        chance: Constraints.
        control_names: Names of the set-points, in array order.
        run_ids: Names of the runs so far, in the order in which they were given.

    Returns:
        Nested dictionary, ready for JSON. `best_expected` is the best of the runs proposed here
        that keep every limit, by criterion; `best_looked_at` the best recipe of the search;
        `runs_so_far` what the model makes of each run, in their order; `directions` 1 where there
        is to be more of a criterion, -1 where less; `profile` how changes within the runs were
        found, where there are any.
    """
    labels = [criterion.label for criterion in ofv.criteria]
    limits = each_constraint(chance)
    host = jax.device_get(info)

    def by_label(values: Any) -> dict[str, float]:
        return dict(zip(labels, np.asarray(values, float).tolist(), strict=True))

    def names(mask: Any) -> list[str]:
        return [n for n, held in zip(control_names, np.asarray(mask), strict=True) if held]

    asked = np.array([float(limit.probability) for limit in limits])
    kept = np.asarray(host.probability_kept) >= asked[None, :] - 1e-9
    is_kept: np.ndarray = np.all(kept, axis=1)
    runs = [
        {
            "expected": by_label(host.mean[k]),
            "sd": by_label(host.sd[k]),
            "q10": by_label(host.q10[k]),
            "q90": by_label(host.q90[k]),
            "probability_kept": np.asarray(host.probability_kept[k], float).tolist(),
            "at_lower_bound": names(host.at_lower[k]),
            "at_upper_bound": names(host.at_upper[k]),
            "linear_constraints_active": np.asarray(host.linear_active[k]).tolist(),
            "is_kept": bool(is_kept[k]),
        }
        for k in range(host.mean.shape[0])
    ]
    constraints = [
        {
            "limit": f"{limit.label} {float(limit.minimum):g}",
            "is_daily": limit.value is None,
            "probability": float(limit.probability),
            "share_of_space": float(host.share_feasible[k]),
            "best_without": by_label(host.relaxed_mean[k]),
        }
        for k, limit in enumerate(limits)
    ]
    how = {} if host.profile is None else {"profile": _how(host.profile, by_label)}
    return {
        **how,
        "runs": runs,
        "constraints": constraints,
        "fixed": names(host.is_fixed),
        "best_expected": _best_so_far(np.asarray(host.mean)[is_kept], ofv, labels)
        or by_label(np.full(len(labels), np.nan)),
        "best_looked_at": by_label(host.best_mean),
        "best_of_runs_so_far": _best_so_far(host.runs_mean, ofv, labels),
        "runs_so_far": [by_label(row) for row in np.asarray(host.runs_mean, float)],
        "directions": by_label([float(c.direction) for c in ofv.criteria]),
        "best_probability": float(host.best_probability),
        "is_feasible": bool(host.is_feasible),
        "n_rollouts": int(host.n_rollouts),
        "remarks": _remarks(host) + _short_of(runs, constraints) + _beaten(host, ofv, run_ids),
    }


def _how(profile: Any, by_label: Any) -> dict[str, Any]:
    """How changes within the runs were found."""
    runs = [
        {
            "n_moves": int(moves),
            "n_rounds": int(rounds),
            "is_settled": bool(settled),
            "rounding": float(lost),
        }
        for moves, rounds, settled, lost in zip(
            profile.n_moves, profile.n_rounds, profile.is_settled, profile.rounding, strict=True
        )
    ]
    return {"best_held": by_label(profile.held_mean), "runs": runs}


def _short_of(runs: list[dict[str, Any]], constraints: list[dict[str, Any]]) -> list[str]:
    """Proposed runs that keep a limit less surely than was asked."""
    return [
        f"Run {k} of those proposed keeps {limit['limit']} with probability {kept:.2f} only; asked "
        f"was {limit['probability']:g}. No other recipe that keeps it was found far enough from "
        "the runs before it."
        for k, run in enumerate(runs, start=1)
        for limit, kept in zip(constraints, run["probability_kept"], strict=True)
        if kept < limit["probability"] - 1e-9
    ]


def _beaten(host: Any, ofv: ProcessOFV, run_ids: Sequence[str] | None) -> list[str]:
    """Whether a run already made is expected to be better than every one proposed."""
    values, mine = np.asarray(host.runs_mean, float), np.asarray(host.mean, float)
    if len(ofv.criteria) != 1 or len(values) == 0:
        return []
    sign, label = float(ofv.criteria[0].direction), ofv.criteria[0].label
    best = int(np.argmax(np.where(np.isfinite(values[:, 0]), sign * values[:, 0], -np.inf)))
    proposed = sign * float(np.max(sign * mine[:, 0]))
    if not sign * values[best, 0] > sign * proposed:
        return []
    name = f"number {best + 1}" if run_ids is None else run_ids[best]
    return [
        f"Run {name}, already made, is expected to be better than every run proposed: {label} "
        f"{values[best, 0]:.4g} against {proposed:.4g}."
    ]


def _remarks(host: Any) -> list[str]:
    """What was fallen back to, in sentences."""
    said = []
    if bool(host.is_flat):
        said.append("Every recipe is worth the same to this goal: the runs are merely apart.")
    if int(host.n_nonfinite):
        said.append(f"{int(host.n_nonfinite)} recipes had no finite forecast and were left out.")
    if not bool(host.is_feasible):
        said.append("No recipe keeps every limit: the runs are those that keep them best.")
    return said


def _best_so_far(values: Any, ofv: ProcessOFV, labels: list[str]) -> dict[str, float]:
    """The model's best value of each criterion among the runs so far."""
    if len(values) == 0:
        return {}
    signs = np.array([float(c.direction) for c in ofv.criteria])
    best = signs * np.max(signs[None, :] * np.asarray(values), axis=0)
    return dict(zip(labels, best.tolist(), strict=True))
