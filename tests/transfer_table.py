"""Made-up fed-batches of three products: arrays without a plant, so without compiling."""

import itertools

import numpy as np

from perfusio_jax.embedding import StudyData
from perfusio_jax.simulator import FedBatchRuns

PRODUCTS = ("alpha", "beta", "gamma")


def made_up(n_historic: int = 2, n_novel: int = 3, n_test: int = 2, n_days: int = 5) -> StudyData:
    """A study whose readings obey no kinetics and whose volumes and feeds are those of a vessel.

    Args:
        n_historic: Runs of each of the two historic products.
        n_novel: Runs of the novel one to train on.
        n_test: Its test runs.
        n_days: Days of a run.
    """
    rng = np.random.default_rng(7)
    owners = [k for k in range(2) for _ in range(n_historic)] + [2] * (n_novel + n_test)
    n, samples = len(owners), n_days + 1
    days = np.broadcast_to(np.arange(samples, dtype=float), (n, samples))
    added = np.where(rng.random((n, samples)) < 0.6, 0.005, 0.0)
    added[:, 0] = 0.0
    after = 0.25 + np.cumsum(added - 0.004, axis=1)
    fed = np.zeros((n, samples, 6))
    fed[..., 1], fed[..., 2] = 400.0 * added, 120.0 * added
    readings = 1.0 + np.cumsum(rng.random((n, samples, 6)), axis=1)
    controls = rng.uniform(0.9, 1.1, (n, 1, 3)) * np.array([36.5, 7.0, 175.0])
    runs = FedBatchRuns(
        measured=readings,
        truth=readings,
        controls=np.broadcast_to(controls, (n, samples, 3)),
        fed=fed,
        given=np.zeros_like(fed),
        volume_before=after + 0.004,
        volume_after=after,
        days=days,
        product=np.asarray(owners),
    )
    edges = np.cumsum([0, 2 * n_historic, n_novel, n_test])
    parts = [FedBatchRuns(*(v[a:b] for v in runs)) for a, b in itertools.pairwise(edges)]
    return StudyData(*parts, PRODUCTS)
