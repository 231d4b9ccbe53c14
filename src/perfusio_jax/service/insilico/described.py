"""One part of an in-silico campaign of a described culture: vessels side by side under a policy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from perfusio_jax._core import HOURS_PER_DAY, ConfigError, Result
from perfusio_jax.process import Process
from perfusio_jax.simulator import by_interval, whole_intervals
from perfusio_jax.simulator.described_side_by_side import interval_later, read_vessels
from perfusio_jax.simulator.side_by_side import started_runs

from .plan import CampaignPlan, PolicyPlan, cells_of, designs_of
from .policies import Seen, checked_shape, policy_of
from .vessels import Vessels, outcomes, vessels_of


def run_described_part(plan: CampaignPlan, part: int) -> pa.Table:
    """Compute a part; see `driving.run_part`.

    Set-points stay as they were asked for: what cannot flow is held from sample to sample anew. A
    run that fails keeps its set-points, and its readings are missing from then on.

    Args:
        plan: A campaign of a described culture.
        part: Which part, from 0.

    Returns:
        A row for each run.

    Raises:
        ConfigError: If the mechanism does not fit, a policy cannot be found, or what it gives
            cannot be set.
    """
    cells = cells_of(plan, part)
    policy, culture, vessels = policy_of(cells.policy), plan.culture, vessels_of(plan)
    n = cells.run.size
    pad = np.minimum(np.arange(plan.part), n - 1)
    design = designs_of(plan)[cells.design[pad]]
    n_intervals = whole_intervals(plan.days, plan.sampling_interval_hours)
    planned = by_interval(culture, design, n_intervals)
    is_given = np.array([control.role == "bolus" for control in culture.controls], bool)
    mechanisms = jax.tree.map(
        lambda v: v[cells.clone[pad]] if hasattr(v, "shape") else v, vessels.mechanisms
    )
    # noise and inoculum are those of the run's clone, design and seed: policies meet the same ones
    number = cells.run[pad] % plan.runs_per_policy
    states, keys = _started(plan, vessels, number, n_intervals)
    volumes = jnp.full(plan.part, vessels.plant.volume_L)
    set_points, codes = planned[:, 0].copy(), np.zeros(plan.part, int)
    truth, moved, n_held = [], np.zeros(plan.part), np.zeros(plan.part)
    length = jnp.asarray(plan.sampling_interval_hours, float)
    for k in range(n_intervals + 1):
        true, read = read_vessels(vessels.plant, states, keys[:, k])
        truth.append(np.asarray(true))
        if k == n_intervals:
            break
        set_points[:, is_given] = planned[:, k, is_given]
        hour = k * plan.sampling_interval_hours
        seen = Seen(
            int(hour // HOURS_PER_DAY),
            np.asarray(read),
            set_points.copy(),
            design.copy(),
            hour,
            culture.readings,
            culture.control_names,
            np.asarray(volumes),
        )
        asked = checked_shape(cells.policy, policy(seen), set_points)
        asked = np.where((codes == 0)[:, None], asked, set_points)
        _check_set_points(cells.policy, culture, asked, asked != set_points)
        moved += np.any(asked != set_points, axis=1)
        set_points = asked
        later = interval_later(
            vessels.plant, mechanisms, (states, volumes), jnp.asarray(asked), length
        )
        states, volumes = later.states, later.volumes_L
        n_held += np.asarray(later.is_held)
        codes = np.where(codes == 0, np.asarray(later.result), codes)
    good = (codes == Result.SUCCESS)[:n]
    seen_truth = np.where(good[:, None, None], np.stack(truth, axis=1)[:n], np.nan)
    columns: dict[str, Any] = {
        "run": cells.run,
        "policy": np.repeat(cells.policy.name, n),
        "clone": np.asarray(plan.clone_names)[cells.clone],
        "design": cells.design,
        "seed": cells.seed,
        **dict(zip(culture.control_names, design[:n].T, strict=True)),
        **outcomes(culture, seen_truth, np.where(good, np.asarray(volumes)[:n], np.nan)),
        "n_changes": moved[:n],
        "n_held": n_held[:n],
        "result": codes[:n],
    }
    return pa.table(columns)


def _started(
    plan: CampaignPlan, vessels: Vessels, number: np.ndarray, n_intervals: int
) -> tuple[jax.Array, jax.Array]:
    """Inocula and keys; only the biomass scatters."""
    factor, keys = started_runs(
        jnp.ones(1),
        jnp.asarray(plan.inoculum_cv),
        jnp.asarray(plan.seed, jnp.uint32),
        jnp.asarray(number, jnp.uint32),
        n_intervals,
    )
    states = np.tile(vessels.start, (number.size, 1))
    if plan.culture.biomass is not None:
        place = vessels.plant.states.index(plan.culture.biomass)
        states[:, place] *= np.asarray(factor)[:, 0]
    return jnp.asarray(states), keys


def _check_set_points(
    plan: PolicyPlan,
    culture: Process,
    asked: Float[np.ndarray, "L M"],
    is_changed: Bool[np.ndarray, "L M"],
) -> None:
    """Refuse what was changed to something that cannot be set.

    Raises:
        ConfigError: Naming the control, what was given and what is allowed.
    """
    for k, control in enumerate(culture.controls):
        column = asked[:, k]
        bad = is_changed[:, k] & ~((column >= control.lo) & (column <= control.hi))
        if bad.any():
            row = int(np.argmax(bad))
            raise ConfigError(
                f"policy {plan.name!r} gave {control.name} {column[row]:g} in row {row}; "
                f"{control.lo:g} to {control.hi:g} {control.unit} is allowed. Where nothing was "
                "read, readings are NaN."
            )
