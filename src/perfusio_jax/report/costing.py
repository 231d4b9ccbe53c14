"""What proposed runs cost and how long they take, in numbers and in words."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import HOURS_PER_DAY
from perfusio_jax.bed.goal.costs import Costs
from perfusio_jax.bed.goal.expressions import RunForm
from perfusio_jax.bed.goal.run_flows import litres_in_steps, ways, ways_in


def costs_of(
    costs: Costs, form: RunForm, forecast: np.ndarray, recipes: np.ndarray
) -> dict[str, Any]:
    """Costs and time of proposed runs.

    Args:
        costs: Prices.
        form: Culture, layout and length of the steps.
        forecast: Mean forecast of each run `(q,H,F)`.
        recipes: Set-points, held `(q,d)` or of every step `(q,H,d)`.

    Returns:
        Cost and litres of each run, and of all together, and days of each and of the campaign.
    """
    n = len(form.hours)
    days = sum(form.hours) / HOURS_PER_DAY
    plans = np.repeat(recipes[:, None, :], n, axis=1) if recipes.ndim == 2 else recipes
    names = ways(form.process)
    runs = []
    for Y, plan in zip(forecast, plans, strict=True):
        litres = np.asarray(litres_in_steps(form, jnp.asarray(Y), jnp.asarray(plan)))
        cost = float(costs.of_run(form.process, jnp.asarray(litres), days, n))
        used = {name: float(litres[:, names.index(name)].sum()) for name in ways_in(form.process)}
        runs.append({"cost": cost, "used_L": used})
    return {
        "runs": runs,
        "total": float(sum(run["cost"] for run in runs)),
        "days_of_a_run": days,
        "days_of_all": costs.campaign_days(len(runs), days),
        "reactors": costs.reactors or len(runs),
    }


def costs_in_words(found: Mapping[str, Any]) -> list[str]:
    """Costs and time, one line per run and one for all; none where nothing has a price."""
    told = found.get("costs")
    if told is None:
        return []
    lines = []
    for k, (run, value) in enumerate(zip(told["runs"], found["runs"], strict=True), start=1):
        used = ", ".join(f"{litres:.4g} L of {name}" for name, litres in run["used_L"].items())
        each = ", ".join(
            f"{label} per cost {value['expected'][label] / run['cost']:.4g}"
            for label in value["expected"]
            if run["cost"] > 0.0 and "cost()" not in label
        )
        lines.append(
            f"run {k} costs {run['cost']:.5g}{f' with {used}' if used else ''}"
            f"{f'; {each}' if each else ''}"
        )
    lines.append(
        f"all {len(told['runs'])} runs cost {told['total']:.5g} and take "
        f"{told['days_of_all']:.4g} d with {told['reactors']} reactor(s)"
    )
    return lines
