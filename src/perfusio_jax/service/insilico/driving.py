"""One part of an in-silico campaign: runs side by side, sampled daily and driven by a policy."""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from perfusio_jax._core import REGISTRY, ConfigError, Result
from perfusio_jax.chemistry import bleed_trigger
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.mechanistic import Reactor
from perfusio_jax.simulator import NoiseModel, initial_state
from perfusio_jax.simulator.side_by_side import day_later, read_samples, started_runs

from .plan import CONTROLS, CampaignPlan, PolicyPlan, cells_of, designs_of, kinetics_of

_BLEED, _PERFUSION = (CONTROLS.index(n) for n in ("bleed_rate", "perfusion_rate"))
_VCV = REGISTRY.index("VCV")


class Seen(NamedTuple):
    """What a policy is given, of runs side by side."""

    day: int
    """Culture day [d]."""
    readings: Float[np.ndarray, "L 13"]
    """Noisy readings of the registry's species (`perfusio_jax._core.REGISTRY`); NaN where lost."""
    set_points: Float[np.ndarray, "L 6"]
    """Those in force."""
    design: Float[np.ndarray, "L 6"]
    """Those the run began with."""


Policy = Callable[[Seen], Float[np.ndarray, "L 6"]]
"""Set-points until the next sample. Runs are in rows, and a row depends on its own row alone. A
bleed above the perfusion, which no vessel has, is held at it and counted (`n_held`)."""


def policy_of(plan: PolicyPlan) -> Policy:
    """The function that a policy of a plan names.

    Raises:
        ConfigError: If it cannot be found.
    """
    if plan.kind == "fixed":
        return lambda seen: seen.set_points
    if plan.kind == "bleed":
        return lambda seen: _bleeding(plan, seen)
    module, name = plan.kind.split(":")
    try:
        function: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"policy {plan.name!r}: {plan.kind} cannot be had ({error}). Its module has to be "
            "installed, or in a folder of PYTHONPATH, on every machine."
        ) from None
    if callable(function):
        return cast(Policy, function)
    raise ConfigError(f"policy {plan.name!r}: {plan.kind} is no function.")


def _bleeding(plan: PolicyPlan, seen: Seen) -> Float[np.ndarray, "L 6"]:
    """Bleed rises from the design's with the cell volume; a lost reading leaves it as it is."""
    found = seen.set_points.copy()
    vcv = seen.readings[:, _VCV]
    most = max(float(DEFAULT_AMBR250_DESIGN_SPACE.bounds_array[1][_BLEED]), found[:, _BLEED].max())
    least = seen.design[:, _BLEED]
    wanted = bleed_trigger(
        jnp.asarray(vcv), plan.target, jnp.asarray(least), jnp.full_like(least, most), plan.gain
    )
    known = np.isfinite(vcv)
    found[known, _BLEED] = np.asarray(wanted)[known]
    return found


def run_part(plan: CampaignPlan, part: int) -> pa.Table:
    """Compute a part.

    Every part is as long as the others while it is computed, so that one program serves all of
    them and a run is the same to the last bit wherever its part is computed.

    Args:
        plan: The campaign.
        part: Which part, from 0.

    Returns:
        A row for each run: what it is, its design, what it came to, its result code.

    Raises:
        ConfigError: If a policy cannot be found, or what it gives cannot be set.
    """
    cells = cells_of(plan, part)
    policy = policy_of(cells.policy)
    n = cells.run.size
    pad = np.minimum(np.arange(plan.part), n - 1)
    clones, design = cells.clone[pad], designs_of(plan)[cells.design[pad]]
    kinetics = jax.tree.map(lambda v: jnp.asarray(np.asarray(v)[clones]), kinetics_of(plan))
    reactor = Reactor(kinetics=kinetics)
    # noise and inoculum are those of the run's clone, design and seed: policies meet the same ones
    number = cells.run[pad] % plan.runs_per_policy
    states, keys = started_runs(
        initial_state(),
        jnp.asarray(plan.inoculum_cv),
        jnp.asarray(plan.seed, jnp.uint32),
        jnp.asarray(number, jnp.uint32),
        plan.days,
    )
    noise = NoiseModel()
    cv, lost = noise.cv_array(REGISTRY), jnp.asarray(noise.missing_prob)
    set_points, codes = design.copy(), np.zeros(plan.part, int)
    truth, moved, n_held = [], np.zeros(plan.part), np.zeros(plan.part)
    for day in range(plan.days + 1):
        true, read = read_samples(kinetics, states, cv, lost, keys[:, day])
        truth.append(np.asarray(true))
        if day == plan.days:
            break
        seen = Seen(day, np.asarray(read), set_points, design)
        after, held = _checked(cells.policy, policy(seen), set_points)
        n_held += held
        moved += np.any(after != set_points, axis=1)
        set_points = after
        states, result = day_later(reactor, states, jnp.asarray(set_points))
        codes = np.where(codes == 0, np.asarray(result), codes)
    return _table(plan, part, np.stack(truth, axis=1)[:n], codes[:n], (moved[:n], n_held[:n]))


def _checked(
    plan: PolicyPlan, given: Any, before: np.ndarray
) -> tuple[np.ndarray, Bool[np.ndarray, " L"]]:
    """Set-points of a policy, and in which runs its bleed had to be held."""
    found = np.array(given, float)
    if found.shape != before.shape:
        raise ConfigError(
            f"policy {plan.name!r} gave set-points of shape {found.shape} for runs of shape "
            f"{before.shape}; it has to give as many."
        )
    bad = ~(np.isfinite(found) & (found >= 0.0))
    if bad.any():
        row, column = (int(k) for k in np.argwhere(bad)[0])
        raise ConfigError(
            f"policy {plan.name!r} gave {CONTROLS[column]} {found[row, column]:g} in row {row}; "
            "a finite number not below 0 is needed."
        )
    held = found[:, _BLEED] > found[:, _PERFUSION]
    found[:, _BLEED] = np.minimum(found[:, _BLEED], found[:, _PERFUSION])
    return found, held


def _table(
    plan: CampaignPlan,
    part: int,
    truth: np.ndarray,
    codes: np.ndarray,
    counts: tuple[np.ndarray, np.ndarray],
) -> pa.Table:
    cells = cells_of(plan, part)
    good = codes == Result.SUCCESS
    truth = np.where(good[:, None, None], truth, np.nan)
    names = np.asarray(plan.clone_names)
    columns: dict[str, Any] = {
        "run": cells.run,
        "policy": np.repeat(cells.policy.name, cells.run.size),
        "clone": names[cells.clone],
        "design": cells.design,
        "seed": cells.seed,
    }
    columns |= dict(zip(CONTROLS, designs_of(plan)[cells.design].T, strict=True))
    column = REGISTRY.index
    columns |= {
        "Titer_last": truth[:, -1, column("Titer")],
        "VCV_mean": truth[:, :, column("VCV")].mean(axis=1),
        "VCD_max": truth[:, :, column("VCD")].max(axis=1),
        "Via_min": truth[:, :, column("Via")].min(axis=1),
        "Amm_max": truth[:, :, column("Amm")].max(axis=1),
        "Lac_max": truth[:, :, column("Lac")].max(axis=1),
        "n_changes": counts[0],
        "n_held": counts[1],
        "result": codes,
    }
    return pa.table(columns)
