"""`perfusio-jax run`: the twin on a folder, a TOML file or a sample file."""

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from perfusio_jax._core import ConnectorError, PerfusioError
from perfusio_jax.connectors.stop_signals import heard
from perfusio_jax.twin import DigitalTwin, Fleet
from perfusio_jax.twin.records.secrets import in_short

from .plan import Pictures, plans_of


def run_twin(
    what: Path,
    *,
    days: int | None,
    allow_write: bool | None,
    patience_s: float | None,
    console: Any,
    pictures: Pictures | None = None,
) -> None:
    """Run the twin until its days are over or somebody stops it.

    Args:
        what: See `read_settings`; or a fleet, several of them.
        days: Days in all [d]; the configuration's by default.
        allow_write: Beats the configuration.
        patience_s: How long to wait for a sample [s].
        console: Where to print.
        pictures: Makes what draws the alarms of a vessel; None: they are told in words.
    """
    plans = plans_of(what)
    for plan in plans:
        if plan.model is None:
            console.print("no model is named: starting from the mechanistic model alone")
        plan.announce(console)
    with jax.default_device(plans[0].device), console.status("starting") as status:
        is_first = True

        def say(text: str) -> None:
            nonlocal is_first
            if is_first and text.endswith("deciding"):
                is_first = False
                text += " (the first time also compiles, which perfusio-jax warm does ahead)"
            status.update(text)
            if not console.is_terminal or "recommends" in text:
                console.print(text, soft_wrap=True)

        with contextlib.ExitStack() as opened:
            twins, broken = {}, {}
            for name, own in [(name, plan) for plan in plans for name in plan.reactors]:
                try:
                    twin = own.twin(
                        name,
                        allow_write=allow_write,
                        patience_s=patience_s,
                        say=say,
                        pictures=pictures,
                    )
                except PerfusioError as error:
                    broken[name] = error  # the others go on
                    continue
                twins[name] = opened.enter_context(twin)
            if not twins:
                raise next(iter(broken.values()))
            for name, error in broken.items():
                console.print(f"{name}: not started: {in_short(error)}", soft_wrap=True)
            if not any(twin.allow_write for twin in twins.values()):
                console.print("advising only: set-points are not written (--allow-write writes)")
            bad = asyncio.run(_until_stopped(twins, days, console))
            if broken or bad:
                n = sum(len(plan.reactors) for plan in plans)
                raise ConnectorError(f"{len(broken) + bad} of {n} reactors did not get to the end.")
    for plan in plans:
        console.print(f"records: {os.path.normpath(plan.folder)}", soft_wrap=True)


async def _until_stopped(twins: Mapping[str, DigitalTwin], days: int | None, console: Any) -> int:
    """Run to the end or to a signal; how many reactors of several failed."""
    first = next(iter(twins.values()))
    fleet = None
    if len(twins) > 1:
        loops = {name: twin.loop for name, twin in twins.items()}
        fleet = Fleet(loops, runtime=first.runtime, say=console.print)

    def ask(_name: str) -> None:
        console.print("stopping: nothing more is written")
        if fleet is not None:
            fleet.stop()
        first.stop()

    try:
        with heard(ask):
            if fleet is None:
                await first.run(days)
                return 0
            return await _run_several(fleet, twins, days, console)
    finally:
        for twin in twins.values():
            for part in (twin.connector, twin.archive):
                close = getattr(part, "close", None)
                if close is not None:
                    await close()


async def _run_several(
    fleet: Fleet, twins: Mapping[str, DigitalTwin], days: int | None, console: Any
) -> int:
    def total(name: str) -> float:
        return twins[name].config.duration_days if days is None else days

    fates = await fleet.run(total, first_day=lambda name: twins[name].first_day())
    for name, fate in fates.items():
        reason = f"; {fate.reason}" if fate.reason else ""
        console.print(f"{name}: {fate.ending}{reason}", soft_wrap=True)
    return sum(fate.ending not in ("completed", "stopped") for fate in fates.values())
