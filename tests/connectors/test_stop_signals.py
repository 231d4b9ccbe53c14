"""Requests to end reach a loop, on systems whose loops take no signal handlers too."""

import asyncio
import os
import signal

import pytest

from perfusio_jax.connectors.stop_signals import STOPS, heard


class LoopOfWindows(asyncio.SelectorEventLoop):
    """Refuses handlers, as loops there do."""

    def add_signal_handler(self, sig, callback, *args):
        raise NotImplementedError


async def names_heard(*sent: signal.Signals) -> list[str]:
    names: list[str] = []
    came = asyncio.Event()

    def hear(name: str) -> None:
        names.append(name)
        came.set()

    with heard(hear):
        for number in sent:
            came.clear()
            os.kill(os.getpid(), number)
            await asyncio.wait_for(came.wait(), 30.0)
    return names


@pytest.mark.parametrize("kind", [asyncio.SelectorEventLoop, LoopOfWindows])
def test_both_signals_are_heard_and_handlers_go_back(kind):
    before = [signal.getsignal(stop) for stop in STOPS]
    with asyncio.Runner(loop_factory=kind) as runner:
        inside = [signal.getsignal(stop) for stop in STOPS]
        assert runner.run(names_heard(*STOPS)) == ["SIGINT", "SIGTERM"]
        assert [signal.getsignal(stop) for stop in STOPS][1:] == inside[1:]
    assert [signal.getsignal(stop) for stop in STOPS] == before
