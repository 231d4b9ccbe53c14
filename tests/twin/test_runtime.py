"""Ending what runs beside the loop."""

import asyncio

import pytest

from perfusio_jax.connectors import RackServer
from perfusio_jax.twin.records.runtime import LoopThread, ended
from tests.connectors.opcua_rigs import FREE, CannedRack


async def deaf(n: int) -> str:
    """Takes so many cancellations for something else."""
    for _ in range(n):
        try:
            await asyncio.sleep(3600.0)
        except asyncio.CancelledError:
            continue
    return "over"


async def test_a_task_that_does_not_hear_is_told_again(monkeypatch):
    monkeypatch.setattr("perfusio_jax.twin.records.runtime.TOLD_AGAIN_S", 0.01)
    tasks = [asyncio.create_task(deaf(n)) for n in (0, 1, 3)]
    tasks.append(asyncio.create_task(asyncio.sleep(3600.0)))
    await asyncio.sleep(0)
    *said, last = await asyncio.wait_for(ended(*tasks), 10.0)
    assert said == ["over"] * 3 and isinstance(last, asyncio.CancelledError)
    assert await ended() == []


def test_a_loop_ends_over_a_task_that_does_not_hear(monkeypatch):
    monkeypatch.setattr("perfusio_jax.twin.records.runtime.TOLD_AGAIN_S", 0.01)
    loop = LoopThread()

    async def begin() -> asyncio.Task[str]:
        task = asyncio.create_task(deaf(2))
        await asyncio.sleep(0)
        return task

    async def last() -> None:
        return None

    task = loop.run(begin())
    loop.close(last)
    assert task.result() == "over"


@pytest.mark.parametrize("n", [0, 1])
async def test_a_server_stops_while_it_looks_after_a_client_that_left(n):
    """The library's own stop hangs when its clean-up loses the cancellation to that client."""
    server = await RackServer(CannedRack(1), url=FREE, is_paused=True).start()
    assert server._server is not None
    binary = server._server.bserver
    assert binary is not None and binary.cleanup_task is not None
    await ended(binary.cleanup_task)
    binary.closing_tasks.append(asyncio.create_task(deaf(n)))
    binary.cleanup_task = asyncio.create_task(binary._close_task_loop())
    for _ in range(3):
        await asyncio.sleep(0)
    stopping = asyncio.create_task(server.stop())
    await asyncio.wait({stopping}, timeout=8.0)  # cancelled, it would be freed and seem to pass
    assert stopping.done()
