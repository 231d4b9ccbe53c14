"""`perfusio-jax in-silico`: a plan in, a folder of parts out, taken up where it stopped."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
from rich.table import Table

from perfusio_jax._core import Result
from perfusio_jax._core.results import describe
from perfusio_jax.simulator.virtual_runs import COLLAPSED

from .keeping import is_done, keep_part, open_folder, read_parts
from .plan import CampaignPlan
from .policies import policy_of
from .vessels import vessels_of
from .workers import Cluster, compute

_SHOWN = ("Titer_last", "VCV_mean", "Via_min", "Amm_max")
_MOST_SHOWN = 4
"""Readings of a described culture in the summary."""

_OF_CULTURES: Final[Mapping[int, str]] = MappingProxyType(
    {
        Result.STEP_TOO_SMALL.value: COLLAPSED,
        Result.BAD_INPUT.value: (
            "Here: the stream that keeps the volume had to run backwards between two samples, as "
            "where a flow per cell falls with the cells, or a bolus takes more than there is."
        ),
    }
)
"""What is told beside a result code of a described culture."""


class Done(NamedTuple):
    """What a call did."""

    n_before: int
    """Parts that were there."""
    n_made: int
    """Parts that were computed."""
    seconds: float
    """Wall time [s]."""


def run_campaign(
    plan: CampaignPlan,
    folder: Path,
    *,
    cluster: Cluster | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Done:
    """Run an in-silico campaign, or what is left of it.

    Args:
        plan: The campaign.
        folder: Where its parts are kept. Parts that are there are not computed again.
        cluster: Workers on Ray; this process if None. The rows are the same.
        say: Is told how far it is, line by line.

    Returns:
        What was done.

    Raises:
        ConfigError: If the folder holds another plan, a policy cannot be used, the mechanism of a
            described culture does not fit, or Ray is missing.
        ConnectorError: If the disk is full, the cluster cannot be had, or workers die again and
            again. What is kept stays, and the same call goes on with the rest.
    """
    for policy in plan.policies:  # before there is a folder
        policy_of(policy)
    if plan.is_described:
        vessels_of(plan)
    open_folder(folder, plan)
    missing = [k for k in range(plan.n_parts) if not is_done(folder, plan, k)]
    before = plan.n_parts - len(missing)
    if before:
        say(f"{before} of {plan.n_parts} parts are there already")
    begun = time.perf_counter()
    steady: float | None = None
    for k, (part, table) in enumerate(compute(plan, missing, cluster)):
        keep_part(folder, plan, part, table)
        if k == 0:  # the first part compiled
            steady = time.perf_counter()
        elif steady is not None and (10 * (k + 1)) // len(missing) > (10 * k) // len(missing):
            left = (time.perf_counter() - steady) / k * (len(missing) - k - 1)
            say(f"{before + k + 1} of {plan.n_parts} parts; about {left:.0f} s left")
    return Done(before, len(missing), time.perf_counter() - begun)


def tell_campaign(plan: CampaignPlan, folder: Path, done: Done, console: Any) -> None:
    """Say what a campaign came to, by policy.

    Args:
        plan: The campaign.
        folder: Where it is kept.
        done: What the call did.
        console: Where to print.
    """
    runs = read_parts(folder, plan)
    codes = runs["result"].to_numpy()
    shown = _shown(plan)
    table = Table(title=f"{plan.n_runs} runs of {plan.days} d", title_justify="left")
    table.add_column("policy")
    for name in ("runs", *shown):
        table.add_column(name, justify="right")
    for policy in plan.policies:
        own = (runs["policy"].to_numpy() == policy.name) & (codes == 0)
        cells = []
        for name in shown:
            values = runs[name].to_numpy()[own]
            low, mid, high = np.quantile(values, (0.1, 0.5, 0.9)) if values.size else [np.nan] * 3
            cells.append(f"{_figure(mid)} ({_figure(low)}-{_figure(high)})")
        table.add_row(policy.name, str(int(own.sum())), *cells)
    console.print(table)
    console.print("middle, and 10 to 90 % of the runs")
    for code in np.unique(codes[codes != 0]):
        n = int(np.sum(codes == code))
        console.print(f"{n} of {plan.n_runs} runs failed: {describe(int(code))}", soft_wrap=True)
        if plan.is_described and int(code) in _OF_CULTURES:
            console.print(_OF_CULTURES[int(code)], soft_wrap=True)
    rate = done.n_made * plan.part / done.seconds if done.n_made else 0.0
    console.print(
        f"{folder}: {plan.n_parts} parts, {done.n_before} of them from before"
        + (f"; {rate:.0f} runs/s, compiling included" if rate else ""),
        soft_wrap=True,
    )


def _figure(value: float) -> str:
    """Three figures, or a whole number where it is a large one."""
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"


def _shown(plan: CampaignPlan) -> tuple[str, ...]:
    """Columns of the summary."""
    if not plan.is_described:
        return _SHOWN
    return tuple(f"{name}_last" for name in plan.culture.readings[:_MOST_SHOWN])
