"""A decision on a plain surrogate: a belief about the objective over set-points, no roll-outs.

The acquisition is the room's own. What is known are the set-points in force and the last plan:
the better of their posterior means is the incumbent, and they are the baseline of the
acquisitions that want one.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Array, ConfigError
from perfusio_jax.bed.acquisition.acquisitions import (
    MULTI_OBJECTIVE,
    build_acquisition,
)
from perfusio_jax.bed.optimiser.maximand import n_extra_of
from perfusio_jax.bed.optimiser.search import describe_search, optimise_acquisition_with_info
from perfusio_jax.bed.policy.explanations import INCUMBENTS
from perfusio_jax.bed.policy.incumbents import (
    BOTH,
    HAS_REFERENCE,
    SEVERAL_OBJECTIVES,
    SINGLE_OBJECTIVE,
    TAKES_BEST_F,
    check_numbers,
    default_reference,
    draw_weights,
)
from perfusio_jax.bed.policy.settings import PolicySettings

Known = tuple[Array, Array | None, float | None, dict[int, float]]
"""Set-points in force, last plan, given incumbent, set-points held by position."""


def decide_plain(
    settings: PolicySettings, model: Any, known: Known, *, seed: int
) -> dict[str, Any]:
    """Maximise the acquisition of a plain surrogate within the limits in force.

    Args:
        settings: What the decision is made with; its objective and chance constraint do not
            matter here, the surrogate has one of its own.
        model: Any object with `posterior` and `sample` over set-points.
        known: What is known.
        seed: Seed of base samples, weights and search.

    Returns:
        Fields of a `BEDDecision`.

    Raises:
        ConfigError: If the acquisition does not suit the surrogate.
    """
    now, plan, best_f, held = known
    points = now[None, :] if plan is None else jnp.stack([now, plan])
    lower, upper = (np.array(bound) for bound in settings.limits.box(now))
    n_restarts, n_raw = settings.plain_sizes

    def search(acqf: Any) -> tuple[Array, float, Any]:
        starts = jnp.repeat(points[:, None, :], 1 + n_extra_of(acqf), axis=1)
        candidates, values, info = optimise_acquisition_with_info(
            acqf,
            (lower, upper),
            1,
            n_restarts,
            n_raw_samples=n_raw,
            fixed_features=held,
            seed=seed,
            linear_constraints=(settings.limits.A, settings.limits.b),
            initial_points=starts,
        )
        return candidates[0], float(values[0]), info

    name = settings.acqf_name
    mean = np.asarray(model.posterior(points)[0], float)
    _check(settings, model, mean, best_f)
    if name == "qKG" and best_f is None:
        # what a result teaches is counted from the best that is expected without it
        best_f = search(build_acquisition("UCB", model, beta=0.0))[1]
    arguments, said = _arguments(settings, points, mean, (best_f, seed))
    u, value, info = search(build_acquisition(name, model, seed=seed, **arguments))
    return {
        "recommended_controls": settings.named(u),
        "acqf_value": value,
        "explanation": {
            **said,
            "search": {
                "n_converged": int(info.n_converged),
                "n_evals": int(info.n_evals),
                "is_flat": bool(info.is_flat),
            },
            "remarks": list(describe_search(info)[:-1]),
        },
    }


def _arguments(
    settings: PolicySettings, points: Array, mean: np.ndarray, numbers: tuple[float | None, int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the factory is given beside the surrogate, and how it is said."""
    name, (best_f, seed) = settings.acqf_name, numbers
    said: dict[str, Any] = {"name": name}
    if name in TAKES_BEST_F:
        better = int(np.argmax(mean))
        given = best_f is not None
        said["best_f"] = best_f = float(mean[better]) if best_f is None else float(best_f)
        incumbent = "a given value" if given else INCUMBENTS[better]
        if name == "qKG":
            incumbent = "the best expected value"
        return {"best_f": best_f}, {"acquisition": said, "incumbent": incumbent}
    arguments: dict[str, Any] = {"X_baseline": points}
    if name in HAS_REFERENCE:
        ref = settings.preferences.ref_point
        arguments["ref_point"] = default_reference(mean.min(axis=0)) if ref is None else ref
        said["ref_point"] = np.asarray(arguments["ref_point"], float).tolist()
    if name == "qEHVI":
        arguments["Y_baseline"] = mean
    if name == "qNParEGO":
        arguments["weights"] = draw_weights(mean.shape[1], seed)
        said["weights"] = arguments["weights"].tolist()
    which = INCUMBENTS[BOTH if points.shape[0] > 1 else 0]
    return arguments, {"acquisition": said, "incumbent": which}


def _check(settings: PolicySettings, model: Any, mean: np.ndarray, best_f: float | None) -> None:
    name, m = settings.acqf_name, 1 if mean.ndim == 1 else mean.shape[1]
    if name in MULTI_OBJECTIVE and m < 2:
        raise ConfigError(
            f"{name} weighs several objectives against each other, and the surrogate "
            f"{type(model).__name__} predicts one; use one of "
            f"{', '.join((*SINGLE_OBJECTIVE, 'qKG'))}."
        )
    if name not in MULTI_OBJECTIVE and mean.ndim > 1:
        raise ConfigError(
            f"{name} takes one objective, and the surrogate {type(model).__name__} predicts {m}; "
            f"use one of {', '.join(SEVERAL_OBJECTIVES)}."
        )
    check_numbers(name, m, best_f, settings.preferences.ref_point)
