"""Particle filter: exact Kalman on a linear case, redrawing, genealogy, a real run."""

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax.hybrid import assimilate_run, particle_filter, run_arrays
from perfusio_jax.hybrid.particle import log_density, redraw, trace_back
from tests.hybrid.cases import campaign
from tests.hybrid.test_assimilate import STEPS, A, H, Q, R, kalman, readings

SIZE = 200_000


def test_linear_gaussian_case_equals_kalman_and_smoother():
    y = 0.3 * readings()  # readings the model finds likely: few particles starve
    means, covs, smooth = kalman(y)
    keys = jax.random.split(jax.random.key(1), 2 * STEPS + 1)
    x = jax.random.normal(keys[0], (SIZE, 2))
    particles, parents, fewest = [], [], float(SIZE)
    step = jax.jit(_one)
    for t, row in enumerate(y):
        x, parent, effective = step(x, jnp.asarray(row), keys[1 + 2 * t], keys[2 + 2 * t])
        particles.append(x)
        parents.append(parent)
        # the error of a weighted mean grows as the effective number falls, and what was lost
        # once stays lost; five sigma
        fewest = min(fewest, float(effective))
        bound = 5.0 / np.sqrt(fewest)
        assert np.allclose(np.mean(x, axis=0), means[t], atol=bound)
        assert np.allclose(np.cov(np.asarray(x).T), covs[t], atol=2 * bound)
    paths = trace_back(jnp.stack(particles), jnp.stack(parents))
    shares = [np.unique(np.asarray(p[:, 0]), return_counts=True)[1] / SIZE for p in paths]
    effective = [1.0 / np.sum(share**2) for share in shares]
    assert [len(s) for s in shares] == sorted(len(s) for s in shares)  # ancestors merge
    for t in range(STEPS):
        bound = 5.0 / np.sqrt(min(effective[t], fewest))
        assert np.allclose(np.mean(paths[t], axis=0), smooth[t], atol=bound)
    # the oldest states still rest on more than a handful
    assert effective[0] > 20.0


def _one(x, row, key_noise, key_draw):
    moved = x @ A.T + Q * jax.random.normal(key_noise, x.shape)
    predicted = moved @ H.T
    weight = log_density(predicted, row, jnp.broadcast_to(R[None, :], predicted.shape))
    parent, effective, _ = redraw(weight, key=key_draw)
    return moved[parent], parent, effective


def test_redrawing_keeps_shares_and_tells_the_evidence():
    weight = jnp.log(jnp.asarray([0.5, 0.25, 0.125, 0.125]))
    parents = jnp.stack([redraw(weight + 7.0, key=jax.random.key(i))[0] for i in range(400)])
    counts = np.bincount(np.asarray(parents).reshape(-1), minlength=4) / parents.size
    # systematic redrawing: a share p of n particles comes up within one of n p, every time
    assert np.allclose(counts, [0.5, 0.25, 0.125, 0.125], atol=5 * 0.25 / np.sqrt(400))
    _, effective, log_mean = redraw(weight + 7.0, key=jax.random.key(0))
    assert np.isclose(float(effective), 1.0 / np.sum(np.exp(2 * np.asarray(weight))))
    assert np.isclose(float(log_mean), 7.0 + np.log(0.25))


def test_agrees_with_the_ensemble_filter_on_a_run(hybrid, truth):
    runs, states = campaign(truth, n_runs=1, n_days=8, seed=33)
    ensemble = assimilate_run(hybrid, runs[0], key=jax.random.key(0), n_particles=256)
    particles = particle_filter(
        hybrid, run_arrays(runs[0]), key=jax.random.key(1), n_particles=6000
    )
    assert np.all(np.asarray(particles.effective) > 1.0)
    cells = np.asarray(particles.filtered)[:, :, 0]
    gap = np.mean(np.asarray(ensemble.filtered)[:, :, 0], axis=1) - cells.mean(axis=1)
    spread = np.std(np.asarray(ensemble.filtered)[:, :, 0], axis=1)
    assert np.all(np.abs(gap) < 1.5 * spread)
    error = np.abs(np.median(cells, axis=1) / states[0, :, 0] - 1.0)
    # the start is hardly known until it is read; from then on better than one assay
    assert error[1:].mean() < 0.05
