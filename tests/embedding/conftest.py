"""One small simulated study for all files of this folder."""

import jax
import pytest

from perfusio_jax.embedding import simulate_study


@pytest.fixture(scope="session")
def small_study():
    """Two historic products with four runs each, a novel one with four, ten test runs.

    Within the products that consume lactate the constants are the same, so that the novel one
    is a historic one under another name.
    """
    return simulate_study(
        jax.random.key(1),
        n_consuming=1,
        n_producing=1,
        n_historic=4,
        n_novel=4,
        n_test=10,
        spread=0.0,
    )
