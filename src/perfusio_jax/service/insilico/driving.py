"""One part of an in-silico campaign: runs side by side, sampled daily and driven by a policy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from perfusio_jax._core import HOURS_PER_DAY, REGISTRY, ConfigError, Result
from perfusio_jax.mechanistic import Reactor
from perfusio_jax.simulator import NoiseModel, initial_state
from perfusio_jax.simulator.side_by_side import day_later, read_samples, started_runs

from .described import run_described_part
from .plan import CONTROLS, CampaignPlan, PolicyPlan, cells_of, designs_of, kinetics_of
from .policies import Seen, checked_shape, policy_of

_BLEED, _PERFUSION = (CONTROLS.index(n) for n in ("bleed_rate", "perfusion_rate"))


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
    if plan.is_described:
        return run_described_part(plan, part)
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
        hour = HOURS_PER_DAY * day
        seen = Seen(day, np.asarray(read), set_points, design, hour, tuple(REGISTRY), CONTROLS)
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
    found = checked_shape(plan, given, before)
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
