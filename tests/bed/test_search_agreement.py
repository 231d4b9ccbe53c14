"""Best acquisition values against those `optimize_acqf` of BoTorch found, stored.

The store is made by `python -m benchmarks.bed --agreement --store tests/reference/bed_search.npz`;
the full comparison, seven problems of ten seeds, is that command's table.
"""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bed import STORED, is_no_worse, make_ours, search_ours, violation
from benchmarks.bed_problems import PROBLEMS, Table
from perfusio_jax.bed import FallbackWarning

STORE = np.load(Path(__file__).parents[1] / "reference" / "bed_search.npz")
GIVEN = ("lengthscale", "variance", "noise", "constant", "base", "baseline")


@pytest.mark.parametrize("name", STORED)
def test_search_is_no_worse_than_the_stored_value(name):
    problem = next(p for p in PROBLEMS if p.name == name)
    for seed in range(STORED[name]):

        def stored(key, seed=seed):
            return STORE[f"{name}.{seed}.{key}"]

        table = Table(stored("X"), stored("Y"), float(stored("limit")), stored("ref_point"))
        given = {k: stored(k) if f"{name}.{seed}.{k}" in STORE else None for k in GIVEN}
        keeps = not problem.has_constraint or bool((table.Y[:, -1] <= table.limit).any())
        # where no known point keeps the constraint the front is empty, and that is said
        said = nullcontext() if keeps else pytest.warns(FallbackWarning, match="empty front")
        with said:
            acqf = make_ours(problem, table, given)
        found = search_ours(problem, acqf, seed)
        assert is_no_worse(found.value, float(stored("value")))
        assert violation(problem, found.X) <= 1e-12
