"""Names of quantiles: the usual ones as ever, no two levels under one name."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfusio_jax._core import DataError
from perfusio_jax.gp.levels import level_key, level_keys


def test_usual_names():
    levels = (0.05, 0.1, 0.5, 0.9, 0.95, 0.02, 0.025, 0.975, 0.29, 1e-7, np.float64(0.005))
    names = ["q5", "q10", "q50", "q90", "q95", "q2", "q2.5", "q97.5", "q29", "q0.00001", "q0.5"]
    assert [level_key(level) for level in levels] == names
    assert list(level_keys(levels)) == names


@settings(max_examples=50, derandomize=True)
@given(st.floats(0.0, 1.0, exclude_min=True, exclude_max=True))
def test_a_name_gives_its_level_back(level):
    name = level_key(level)
    assert float(Decimal(name[1:]).scaleb(-2)) == level
    assert "e" not in name.lower()


def test_what_is_no_probability_is_refused():
    for level in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(DataError, match="between 0 and 1"):
            level_keys((0.5, level))
