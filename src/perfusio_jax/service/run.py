"""`perfusio-jax run`: the twin on a folder, a TOML file or a sample file."""

import asyncio
import contextlib
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from perfusio_jax._core import ConnectorError
from perfusio_jax.twin import DigitalTwin, Fleet

from .plan import read_plan


def run_twin(
    what: Path,
    *,
    days: int | None,
    allow_write: bool | None,
    patience_s: float | None,
    console: Any,
) -> None:
    """Run the twin until its days are over or somebody stops it.

    Args:
        what: See `read_settings`.
        days: Days in all [d]; the configuration's by default.
        allow_write: Beats the configuration.
        patience_s: How long to wait for a sample [s].
        console: Where to print.
    """
    plan = read_plan(what)
    if plan.model is None:
        console.print("no model is named: starting from the mechanistic model alone")
    plan.announce(console)
    with jax.default_device(plan.device), console.status("starting") as status:

        def say(text: str) -> None:
            status.update(text)
            if not console.is_terminal or "recommends" in text:
                console.print(text, soft_wrap=True)

        with contextlib.ExitStack() as opened:
            twins = {}
            for name in plan.reactors:
                twins[name] = plan.twin(
                    name, allow_write=allow_write, patience_s=patience_s, say=say
                )
                opened.enter_context(twins[name])
            if not any(twin.allow_write for twin in twins.values()):
                console.print("advising only: set-points are not written (--allow-write writes)")
            asyncio.run(_until_stopped(twins, days, console))
    console.print(f"records: {plan.folder}")


async def _until_stopped(twins: Mapping[str, DigitalTwin], days: int | None, console: Any) -> None:
    loop = asyncio.get_running_loop()

    def ask() -> None:
        console.print("stopping: nothing more is written")
        for twin in twins.values():
            twin.stop()

    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, ask)
    try:
        if len(twins) == 1:
            await next(iter(twins.values())).run(days)
        else:
            await _run_several(twins, days, console)
    finally:
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(name)
        for twin in twins.values():
            for part in (twin.connector, twin.archive):
                close = getattr(part, "close", None)
                if close is not None:
                    await close()


async def _run_several(twins: Mapping[str, DigitalTwin], days: int | None, console: Any) -> None:
    first = next(iter(twins.values()))
    fleet = Fleet(
        {name: twin.loop for name, twin in twins.items()}, runtime=first.runtime, say=console.print
    )
    total = first.config.duration_days if days is None else days
    fates = await fleet.run(total)
    for name, fate in fates.items():
        console.print(f"{name}: {fate.ending}{'; ' + fate.reason if fate.reason else ''}")
    bad = [f for f in fates.values() if f.ending not in ("completed", "stopped")]
    if bad:
        raise ConnectorError(f"{len(bad)} of {len(fates)} reactors did not come to their end.")
