"""A minute of the mutator; `python -m tests.connectors.fuzz` runs as long as one likes."""

import os

import pytest

from tests.connectors.fuzz import case, run, targets

SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))


@pytest.mark.timeout(SECONDS + 120)
def test_nothing_that_is_read_crashes_hangs_or_is_two_things(tmp_path):
    counts = run(SECONDS, SEED, tmp_path / "kept")
    failed = {what: count for what, count in counts.items() if "failed" in what}
    assert not failed, (SEED, failed)
    for name in targets():  # each kind was read at least once, and refused at least once
        assert any(what.startswith(name) for what in counts)


def test_a_case_comes_back_from_its_number(tmp_path):
    known = targets()
    for name in known:
        first = case(name, 5, tmp_path, 3, known).read_bytes()
        assert case(name, 5, tmp_path, 3, known).read_bytes() == first
