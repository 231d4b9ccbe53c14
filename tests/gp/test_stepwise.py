"""Roll-outs: the three ways against each other, joint conditioning, switches, batches."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.gp import GaussianLikelihood, MultiTaskRateGP, RateStep, StepwiseGP, fit_scaling
from perfusio_jax.gp.propagate import moment_path

N_STATES, HORIZON = 2, 4
START = jnp.array([1.0, 0.5])
PLAN = jnp.tile(jnp.array([[0.3]]), (HORIZON, 1))


def build(**options):
    rng = np.random.default_rng(2)
    x = np.column_stack([rng.uniform(0, 2, (25, 2)), rng.normal(size=25), np.arange(25) % 6])
    y = np.column_stack([0.2 * np.cos(2 * x[:, 0]), 0.2 * np.sin(2 * x[:, 1] + x[:, 2])])
    y = y + 0.02 * rng.normal(size=y.shape)
    scaling = fit_scaling(x, day_column=3)
    model = MultiTaskRateGP(x, y, GaussianLikelihood(0.05), n_tasks=2, scaling=scaling)
    return StepwiseGP(model, model.likelihood, 2, ["u"], step=RateStep(1.0), **options)


@pytest.fixture(scope="module")
def gp():
    return build(measurement_sd=jnp.array([0.3, 0.4]))


@pytest.fixture(scope="module")
def marginal(gp):
    return gp.predict_quantiles(
        START, PLAN, HORIZON, 4000, method="mc-marginal", return_samples=True
    )


@pytest.fixture(scope="module")
def matched(gp):
    return gp.predict_quantiles(START, PLAN, HORIZON, 4000, method="moment_matching",
                                return_samples=True)  # fmt: skip


def test_moment_matching_follows_the_marginal_law(marginal, matched):
    samples = np.asarray(marginal["samples"])
    count = samples.shape[0]
    mean, sd = samples.mean(axis=0), samples.std(axis=0)
    # exact for two steps of a linear step; then the law is no longer normal: 3 % of a spread
    slack = np.array([0.0, 0.0, 0.03, 0.03])[:, None] * sd
    assert np.all(np.abs(mean - matched["mean"]) < 5 * sd / np.sqrt(count) + slack)
    variance = np.diagonal(np.asarray(matched["covariance"]), axis1=1, axis2=2)
    slack = np.array([0.0, 0.0, 0.05, 0.08])[:, None]
    assert np.all(np.abs(samples.var(axis=0) / variance - 1) < 5 * np.sqrt(2.5 / count) + slack)


def test_chain_samples_have_the_propagated_moments(matched):
    samples = np.asarray(matched["samples"])
    count = samples.shape[0]
    covariance = np.asarray(matched["covariance"])
    sd = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    assert np.all(np.abs(samples.mean(axis=0) - matched["mean"]) < 5 * sd / np.sqrt(count))
    apart = samples - np.asarray(matched["mean"])[None]
    sampled = np.einsum("phi,phj->hij", apart, apart) / count
    scale = sd[:, :, None] * sd[:, None, :]
    assert np.all(np.abs(sampled - covariance) / scale < 5 * np.sqrt(2 / count))


def test_neighbouring_days_keep_their_covariance(gp, matched):
    rest = jnp.column_stack([PLAN, jnp.arange(HORIZON, dtype=float)])
    path = eqx.filter_jit(moment_path)(
        gp.model, gp.step, START, jnp.zeros((2, 2)), PLAN, rest, jnp.zeros((2, 2))
    )
    apart = np.asarray(matched["samples"]) - np.asarray(matched["mean"])[None]
    sampled = np.einsum("pi,pj->ij", apart[:, 2], apart[:, 1]) / apart.shape[0]
    expected = np.asarray(path.gain[2] @ path.covariance[1])
    sd = np.sqrt(np.diagonal(np.asarray(path.covariance), axis1=1, axis2=2))
    bound = 5 * np.sqrt(2 / apart.shape[0])
    assert np.all(np.abs(sampled - expected) / (sd[2][:, None] * sd[1][None, :]) < bound)
    assert np.any(np.abs(expected) / (sd[2][:, None] * sd[1][None, :]) > 2 * bound)


def test_cubature_agrees_where_the_spread_is_small(gp, matched):
    rough = gp.predict_quantiles(START, PLAN, HORIZON, method="moment_matching", closed_form=False)
    sd = np.sqrt(np.diagonal(np.asarray(matched["covariance"]), axis1=1, axis2=2))
    assert np.allclose(rough["mean"][:1], matched["mean"][:1], atol=1e-9)
    assert np.all(np.abs(rough["mean"] - matched["mean"]) < 0.1 * sd)


def test_paths_have_the_joint_law_of_two_steps(gp):
    """Two steps of a path against brute-force conditioning on the first step's value.

    The second rate is drawn from the posterior given the data *and* the first rate met, which
    is the law of one function; `mc-marginal` forgets the first rate.
    """
    model, count = gp.model, 4000
    result = gp.predict_quantiles(START, PLAN[:2], 2, count, seed=3, return_samples=True)
    samples = np.asarray(result["samples"])
    scaled = np.asarray(model.scaling(model.data.inputs))
    tasks = np.asarray(model.kernel.task_covariance())
    unit = np.asarray(model.target_scale)
    gram = np.asarray(model.kernel.input_matrix(jnp.asarray(scaled), jnp.asarray(scaled)))
    noise = np.diag(np.tile(np.asarray(model.likelihood.variance(2)), 25))
    inner = np.kron(gram, tasks) + noise
    flat = np.asarray(model.data.targets / model.target_scale[None, :]).reshape(-1)
    rng = np.random.default_rng(0)
    first = np.concatenate([np.asarray(START), [0.3, 0.0]])

    def kernel(a, b):
        return np.asarray(model.kernel.input_matrix(jnp.asarray(a), jnp.asarray(b)))

    at_first = np.asarray(model.scaling(jnp.asarray(first)[None, :]))
    cross = np.kron(kernel(at_first, scaled), tasks)
    weights = np.linalg.solve(inner, np.column_stack([flat, cross.T]))
    mean = cross @ weights[:, 0]
    spread = np.kron(kernel(at_first, at_first), tasks) - cross @ weights[:, 1:]
    rates = mean[None, :] + rng.normal(size=(count, 2)) @ np.linalg.cholesky(spread).T
    states = np.asarray(START)[None, :] + rates * unit[None, :]
    second_in = np.column_stack([states, np.full((count, 1), 0.3), np.ones((count, 1))])
    at_second = np.asarray(model.scaling(jnp.asarray(second_in)))
    to_data, to_first = kernel(at_second, scaled), kernel(at_second, at_first)
    prior = np.asarray(model.kernel.input_diagonal(jnp.asarray(at_second)))
    # data and first value together, block by block
    joint = np.block([[inner, cross.T], [cross, np.kron(kernel(at_first, at_first), tasks)]])
    inverse = np.linalg.inv(joint + 1e-10 * np.eye(joint.shape[0]))
    end = np.empty_like(states)
    for i in range(count):
        row = np.hstack([np.kron(to_data[i : i + 1], tasks), np.kron(to_first[i : i + 1], tasks)])
        gain = row @ inverse
        centre = gain @ np.concatenate([flat, rates[i]])
        left = prior[i] * tasks - gain @ row.T
        root = np.linalg.cholesky(left + 1e-9 * np.eye(2))
        end[i] = states[i] + unit * (centre + root @ rng.normal(size=2))
    error = np.sqrt((samples[:, 1].var(axis=0) + end.var(axis=0)) / count)
    assert np.all(np.abs(samples[:, 1].mean(axis=0) - end.mean(axis=0)) < 5 * error)
    ratio = samples[:, 1].var(axis=0) / end.var(axis=0)
    # five standard errors of the ratio of two variances, and 3 % for the features
    assert np.all(np.abs(ratio - 1) < 5 * np.sqrt(2 * 2.5 / count) + 0.03)
    corr = [np.corrcoef(s[:, 0, k], s[:, 1, k])[0, 1] for s in (samples,) for k in range(2)]
    brute = [np.corrcoef(states[:, k], end[:, k])[0, 1] for k in range(2)]
    assert np.allclose(corr, brute, atol=5 * np.sqrt(2 / count) + 0.02)


@pytest.mark.parametrize("method", ["mc", "mc-marginal", "moment_matching"])
def test_batches_noise_switches_and_order(gp, method):
    def forecast(start, plan, **options):
        return gp.predict_quantiles(start, plan, HORIZON, 512, method=method, **options)

    both = jnp.stack([START, START + 0.4])
    plans = jnp.stack([PLAN, -PLAN])
    batch = forecast(both, plans, return_samples=True)
    assert batch["mean"].shape == (2, HORIZON, 2) and batch["samples"].shape == (2, 512, HORIZON, 2)
    assert np.all(batch["q10"] < batch["q50"]) and np.all(batch["q50"] < batch["q90"])
    single = forecast(both[0], PLAN)
    assert np.allclose(single["mean"], batch["mean"][0], atol=1e-9)
    width = np.asarray(single["q90"] - single["q10"])
    noisy = forecast(START, PLAN, process_noise=True)
    assert np.all(np.asarray(noisy["q90"] - noisy["q10"])[0] > width[0])
    read = forecast(START, PLAN, measurement_noise=True)
    spread = np.asarray(read["q90"] - read["q10"]) / (2 * 1.2815515655446004)
    expected = np.sqrt((width / (2 * 1.2815515655446004)) ** 2 + np.array([[0.3, 0.4]]) ** 2)
    # a quantile range of 512 draws has a relative error of about 1.2 / sqrt(512) per side
    assert np.allclose(spread, expected, rtol=1e-9 if method == "moment_matching" else 0.3)


def test_assay_noise_is_not_the_draw_of_another_reactor(gp):
    """The key of a lane is the same number as part of a split: they must not meet."""
    n, both = 400, jnp.stack([START, START])
    plans = jnp.broadcast_to(PLAN[None], (2, *PLAN.shape))
    clean, read = (
        np.asarray(
            gp.predict_quantiles(
                both,
                plans,
                HORIZON,
                n,
                method="moment_matching",
                return_samples=True,
                measurement_noise=noisy,
            )["samples"]
        )
        for noisy in (False, True)
    )
    assay = (read - clean)[0].reshape(-1)[: 2 * n].reshape(n, 2)[:, 0]
    drawn = clean[1, :, 0, 0]
    assert abs(np.corrcoef(assay, drawn)[0, 1]) < 5.0 / np.sqrt(n)


def test_gradients_in_controls_and_state(gp):
    def final(start, plan):
        return gp.predict_quantiles(start, plan, HORIZON, method="moment_matching")["q90"][-1, 0]

    slope, in_plan = jax.jit(jax.grad(final, argnums=(0, 1)))(START, PLAN)
    h = 1e-5
    value = jax.jit(final)
    step = (value(START.at[0].add(h), PLAN) - value(START.at[0].add(-h), PLAN)) / (2 * h)
    assert float(slope[0]) == pytest.approx(float(step), rel=1e-4)
    assert np.all(np.isfinite(in_plan))


def test_the_day_grows_by_hours_and_not_by_steps():
    # a rate in proportion to the day [1/h]: c(H) = sum dt 1e-4 (2 + k dt / 24); c hardly moves
    days = np.linspace(0.0, 8.0, 40)
    x = np.column_stack([np.zeros(40), np.zeros(40), days])
    scaling = fit_scaling(x, day_column=2)
    model = MultiTaskRateGP(x, 1e-4 * days[:, None], GaussianLikelihood(1e-6), n_tasks=1,
                            scaling=scaling)  # fmt: skip
    plan = jnp.zeros((8, 1))
    for options in ({"dt_hours": 6.0}, {"step": RateStep(6.0)}, {"step": lambda c, r, u: c + 6 * r,
                                                                  "dt_hours": 6.0}):  # fmt: skip
        quarter = StepwiseGP(model, model.likelihood, 1, ["u"], **options)
        result = quarter.predict_quantiles(
            jnp.array([0.0]), plan, 8, 4, method="moment_matching", start_day=2.0
        )
        expected = np.cumsum(6.0 * 1e-4 * (2.0 + np.arange(8) * 0.25))
        assert np.allclose(result["mean"][:, 0], expected, rtol=2e-3)


def test_a_step_has_one_length(gp):
    def wrapped(**options):
        return StepwiseGP(gp.model, gp.likelihood, 2, ["u"], **options)

    assert float(wrapped().dt_hours) == float(wrapped().step.dt_hours) == 24.0
    assert float(wrapped(step=lambda c, r, u: c).dt_hours) == 24.0
    with pytest.raises(ConfigError, match="leave dt_hours out"):
        wrapped(step=RateStep(6.0), dt_hours=12.0)
    for bad in (0.0, -1.0, jnp.nan, jnp.ones(2)):
        with pytest.raises(ConfigError, match="above zero"):
            wrapped(dt_hours=bad)
    # a constant inside `jit` is looked at as it is outside
    length = jax.jit(lambda hours: hours * wrapped(dt_hours=jnp.asarray(12.0)).dt_hours)
    assert float(length(2.0)) == 24.0


def test_bad_requests_are_refused(gp):
    with pytest.raises(ConfigError, match="exact"):
        gp.predict_quantiles(START, PLAN, HORIZON, method="exact")
    with pytest.raises(ConfigError, match="controls"):
        gp.predict_quantiles(START, PLAN, HORIZON + 1)
    with pytest.raises(ConfigError, match="context"):
        gp.predict_quantiles(START, PLAN, HORIZON, context=[1.0])
    bare = StepwiseGP(gp.model, gp.likelihood, 2, ["u"])
    with pytest.raises(ConfigError, match="measurement_sd"):
        bare.predict_quantiles(START, PLAN, HORIZON, measurement_noise=True)
    with pytest.raises(ConfigError, match="species"):
        StepwiseGP(gp.model, gp.likelihood, 3, ["u"])
