"""The closing scenario in short; `python -m tests.faults.closing` runs all of it."""

import pytest

from .closing import Closing


@pytest.mark.slow
@pytest.mark.timeout(900)  # real servers and clocks: a busy machine stretches every wait
async def test_two_reactors_over_a_secured_line_with_the_real_model_and_a_fault_every_day(tmp_path):
    print("seed 3")
    one = Closing(tmp_path, n_reactors=2, n_days=4, seconds_per_day=6.0, seed=3)
    figures = await one.run()
    assert one.problems == []
    assert figures["stored"] >= 8 and figures["writes"] >= 4 and figures["faults"] >= 2
