"""The twin's loops over OPC UA while server, line and sensors fail."""

import pytest

from tests.connectors.opcua_campaign import Campaign


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
