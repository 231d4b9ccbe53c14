"""The twin's loops over OPC UA while server, line and sensors fail."""

import asyncio
import threading
from typing import Any

import pytest

from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE, RunConfig
from perfusio_jax.hybrid import HybridStateSpaceModel
from perfusio_jax.mechanistic import CHOPerfusionModel
from perfusio_jax.twin import DigitalTwin, verify_audit
from perfusio_jax.twin.digital_twin import NotReady
from tests.connectors.opcua_campaign import Campaign
from tests.connectors.opcua_rigs import CannedRack, connect, served
from tests.twin.test_digital_twin import Steady


async def test_a_server_that_comes_back_with_default_set_points_is_given_what_stands(tmp_path):
    """Killed and started again as a process; its start time tells it from an operator."""
    campaign = Campaign(
        tmp_path,
        n_reactors=1,
        n_days=3,
        seconds_per_day=2.0,
        seed=1,
        kinds=("default set-points",),
        most_faults=1,
    )
    figures = await campaign.run()
    assert campaign.problems == []  # among them: no reset is taken for an operator's hand
    assert figures["resets"] == 1


@pytest.mark.parametrize("seed", [5])
async def test_reactors_in_closed_loop_with_a_fault_every_day(tmp_path, seed):
    print(f"seed {seed}")
    campaign = Campaign(tmp_path, n_reactors=2, n_days=5, seconds_per_day=2.0, seed=seed)
    figures = await campaign.run()
    assert campaign.problems == []
    assert figures["stored"] >= 2 * 5 and figures["writes"] >= 2
    assert figures["faults"] >= 3


def test_days_taken_one_by_one_use_one_connection(tmp_path):
    """A script that calls `step` for each day must not knock at the server's door each time."""
    rack = CannedRack(1)
    ready = threading.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        async with served(rack=rack) as server:
            done = asyncio.Event()
            loop = asyncio.get_running_loop()
            found.update(server=server, end=lambda: loop.call_soon_threadsafe(done.set))
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(60)
    try:
        connector = connect(found["server"].url)
        with DigitalTwin(
            connector,
            HybridStateSpaceModel(CHOPerfusionModel(), None),
            DEFAULT_AMBR250_DESIGN_SPACE,
            Steady(dict(DEFAULT_AMBR250_DESIGN_SPACE.centre)),  # pyright: ignore
            log_dir=tmp_path,
            run_config=RunConfig(seed=3, n_mc_samples=16),
            patience_seconds=0.0,
            reactor_id="R01",
        ) as twin:
            assert twin.step(0)["sample"] is not None
            assert twin.step(0)["sample"] is None  # done before
            assert connector._link.n_connections == 1
            with pytest.raises(NotReady):
                twin.step(1)
            assert connector._link.n_connections == 1
        assert verify_audit(tmp_path).ok
    finally:
        found["end"]()
        thread.join()
