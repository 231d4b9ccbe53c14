"""The twin's loops over OPC UA while server, line and sensors fail."""

import pytest

from tests.connectors.opcua_campaign import Campaign


@pytest.mark.parametrize("seed", [5])
async def test_reactors_in_closed_loop_with_a_fault_every_day(tmp_path, seed):
    print(f"seed {seed}")
    campaign = Campaign(tmp_path, n_reactors=2, n_days=5, seconds_per_day=2.0, seed=seed)
    figures = await campaign.run()
    assert campaign.problems == []
    assert figures["stored"] >= 2 * 5 and figures["writes"] >= 2
    assert figures["faults"] >= 3
