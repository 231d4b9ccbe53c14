"""One fitted toy model for the tests of this folder: the prior is wrong in growth and uptake."""

import jax
import pytest

from perfusio_jax.gp import FitConfig
from perfusio_jax.hybrid import HybridConfig, fit_hybrid
from tests.hybrid.cases import ToyMechanism, campaign

SMALL = HybridConfig(
    n_particles=48, growth=16, fit=FitConfig(max_iterations=25, n_restarts=1, max_rows=40)
)


@pytest.fixture(scope="session")
def truth():
    return ToyMechanism(growth=0.022, uptake=0.026)


@pytest.fixture(scope="session")
def prior():
    return ToyMechanism()


@pytest.fixture(scope="session")
def runs(truth):
    """Six noisy runs and their true states."""
    return campaign(truth, n_runs=6, n_days=8)


@pytest.fixture(scope="session")
def fitted(runs, prior):
    """Model and report."""
    return fit_hybrid(runs[0], key=jax.random.key(0), config=SMALL, mech_model=prior)


@pytest.fixture(scope="session")
def hybrid(fitted):
    return fitted[0]
