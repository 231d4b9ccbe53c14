"""Decisions on a linear Gaussian plant whose best set-points are known."""

import dataclasses
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import CONTROL_NAMES, STATE_ORDER, ConfigError, DataError
from perfusio_jax.bed import (
    ROLLOUT_SETTINGS,
    BEDPolicy,
    ChanceConstraint,
    Preferences,
    RolloutSurrogate,
    TargetSpec,
    TargetTrackingOFV,
    build_acquisition,
    control_limits,
    gaussian_process,
    incumbent_value,
    match_particles,
    recommend,
)
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE

SPACE = DEFAULT_AMBR250_DESIGN_SPACE
SETTINGS = ROLLOUT_SETTINGS._replace(n_restarts=2, n_raw_samples=32)
FACE = jnp.asarray([56.0, 97.0, 5.0, 2.0, 1.0, 20.0, 3.0, 1.0, 500.0])
S = 32


@pytest.fixture(scope="module")
def scene(linear):
    model = linear.make_model()
    limits = control_limits(SPACE, max_change={"temperature": 0.4})
    ofv = TargetTrackingOFV([TargetSpec(linear.vcv, 14.0)])
    middle = jnp.asarray(0.5 * (linear.lower + linear.upper))

    def decide(*, u_now=middle, seed=0, target=14.0, **changes):
        arguments = {
            "ofv": TargetTrackingOFV([TargetSpec(linear.vcv, target)]),
            "limits": limits,
            "chance": ChanceConstraint(95.0),
            "settings": SETTINGS,
            "rollout": linear.rollout,
            "seed": seed,
            **changes,
        }
        paths = linear.draw_paths(arguments.pop("model", model), S, key=jax.random.key(seed))
        c0 = jnp.broadcast_to(linear.c0, (S, 9))
        return recommend(model, paths, c0, u_now, **arguments)

    return SimpleNamespace(decide=decide, limits=limits, ofv=ofv, middle=middle, model=model)


def test_recommendation_meets_the_target_and_the_limits(scene):
    u, info = scene.decide()
    assert bool(jnp.all((u >= scene.limits.lower) & (u <= scene.limits.upper)))
    assert float(u[1]) <= float(u[0])
    assert abs(float(u[3] - scene.middle[3])) <= 0.4 + 1e-12
    # the mean of the last day lies on the target to within what moves cost
    assert abs(float(info.recommended.mean[-1, 1]) - 14.0) < 0.3
    assert float(info.recommended.ofv) < float(info.unchanged.ofv)
    assert float(info.recommended.probability_kept) >= 0.9
    np.testing.assert_allclose(
        info.recommended.ofv, jnp.sum(info.recommended.target_errors), rtol=1e-12
    )
    assert bool(jnp.all(info.recommended.q10 <= info.recommended.q90 + 1e-12))
    assert int(info.search.n_evals) >= 33 and not bool(info.is_fallback)


def test_same_inputs_give_the_same_bytes_without_a_new_trace(scene, linear):
    calls = []

    def counted(*arguments):
        calls.append(1)
        return linear.rollout(*arguments)

    one = scene.decide(rollout=counted)
    traced = len(calls)
    two = scene.decide(rollout=counted)
    scene.decide(rollout=counted, seed=5, target=12.0, u_now=scene.middle + 0.01)
    assert traced > 0 and len(calls) == traced
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_another_acquisition_improves_on_standing_still_too(scene):
    _, info = scene.decide(acquisition="qUCB")
    assert float(info.recommended.score) > float(info.unchanged.score)


def test_every_acquisition_of_a_decision_prefers_what_is_better(scene):
    from perfusio_jax.bed.policy.incumbents import Rule, Sampled, acquisition_of, compare_with

    best_f = jnp.linspace(-0.2, -0.1, S)
    for kind in ("PI", "EI", "LogEI", "UCB", "LogNEI"):
        rule = Rule(jnp.asarray(0.2), None, jax.random.key(0), kind)
        held = compare_with(rule, best_f[None], jnp.zeros(1))
        worse, better = (
            float(acquisition_of(rule, Sampled(best_f + gain), held)(jnp.zeros((1, 1))))
            for gain in (-0.02, 0.02)
        )
        assert better > worse, kind


def test_chance_constraint_is_kept_where_the_optimum_alone_would_break_it(scene):
    # standing at full agitation the culture is at 93.5 %: the answer must leave it
    u_now = scene.middle.at[4].set(1050.0)
    _, info = scene.decide(u_now=u_now)
    assert float(info.unchanged.probability_kept) < 0.9
    assert float(info.recommended.probability_kept) >= 0.9


def test_exploration_trades_the_mean_for_spread(scene):
    calm = scene.decide(preferences=Preferences(exploration=0.0, move_weight=0.0))[1]
    eager = scene.decide(preferences=Preferences(exploration=1.0, move_weight=0.0))[1]
    assert float(calm.recommended.ofv) <= float(eager.recommended.ofv) + 1e-3


def test_costly_moves_are_smaller(scene):
    def size(weight):
        u, _ = scene.decide(preferences=Preferences(move_weight=weight))
        return float(jnp.sum(jnp.abs(u - scene.middle) / (scene.limits.upper - scene.limits.lower)))

    assert size(0.3) < size(1e-3)


def test_fixed_set_points_stay_and_impossible_limits_are_named(scene):
    u, _ = scene.decide(fixed={2: 3.25})
    assert float(u[2]) == 3.25
    with pytest.raises(ConfigError, match="no point keeps"):
        row = np.zeros((1, 6))
        row[0, 0] = 1.0
        scene.decide(
            limits=dataclasses.replace(scene.limits, A=jnp.asarray(row), b=jnp.asarray([0.1]))
        )
    with pytest.raises(ConfigError, match="cannot track targets"):
        scene.decide(acquisition="qEHVI")


def test_differences_equal_forward_derivatives(scene, linear):
    from perfusio_jax.bed.optimiser.settings import SearchSettings
    from perfusio_jax.bed.optimiser.slopes import differentiated

    paths = linear.draw_paths(scene.model, S, key=jax.random.key(0))
    surrogate = RolloutSurrogate(
        scene.model, paths, linear.c0, scene.ofv, 0.0, rollout=linear.rollout
    )
    best_f, _ = incumbent_value(surrogate, scene.middle[None, :])
    acqf = build_acquisition("qLogEI", surrogate, best_f=best_f, tau_relu=1e-3)
    width = jnp.asarray(linear.upper - linear.lower)

    def function(z):
        return acqf(jnp.asarray(linear.lower)[None, :] + z * width[None, :])

    z = jnp.asarray([[0.3, 0.6, 0.4, 0.9, 0.2, 0.7]])
    found = {}
    for mode in ("reverse", "forward", "difference"):
        pair = differentiated(function, SearchSettings(derivative=mode))
        found[mode] = jax.jit(pair)(z, jnp.asarray(jnp.inf))
    np.testing.assert_allclose(found["forward"][1], found["reverse"][1], rtol=1e-10)
    np.testing.assert_allclose(found["difference"][1], found["reverse"][1], rtol=2e-3, atol=1e-4)
    refused = differentiated(function, SearchSettings(derivative="difference"))(
        z, found["reverse"][0] - 1.0
    )
    assert float(refused[0]) == pytest.approx(float(found["reverse"][0]))
    with pytest.raises(ConfigError, match="modes are reverse"):
        differentiated(function, SearchSettings(derivative="symbolic"))


def test_closed_loop_reaches_the_noise_floor(linear):
    """A plant drawn from the belief, learnt day by day; the floor is a controller that knows it.

    Knowing the plant and today's reading (deviation 0.3), no decision can do better than the
    process noise 0.2 and what the reading error carries over, 0.4 * 0.3: 0.233 in all.
    """
    model = linear.make_model(sd=0.7)
    limits = control_limits(SPACE)
    a, sd = float(model.memory), float(model.process_sd)
    errors = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        mean, P = np.asarray(model.mean), np.asarray(model.factor @ model.factor.T)
        truth = mean + 0.7 * rng.standard_normal(7)
        y, u = 11.0, jnp.asarray(0.5 * (linear.lower + linear.upper))
        for day in range(14):
            factor = jnp.asarray(np.linalg.cholesky(P + 1e-12 * np.eye(7)))
            belief = eqx.tree_at(lambda m: (m.mean, m.factor), model, (jnp.asarray(mean), factor))
            reading = y + 0.3 * rng.standard_normal()
            state = (reading + 0.3 * rng.standard_normal(S)) / linear.vcv_per_cell
            paths = linear.draw_paths(belief, S, key=jax.random.key(100 * seed + day))
            u, _ = recommend(
                belief,
                paths,
                jnp.zeros((S, 9)).at[:, 0].set(jnp.asarray(state)),
                u,
                ofv=TargetTrackingOFV([TargetSpec(linear.vcv, 14.0)]),
                limits=limits,
                day0=float(day),
                chance=ChanceConstraint(0.0),
                settings=SETTINGS,
                seed=day,
                rollout=linear.rollout,
            )
            phi = (1 - a) * np.asarray(linear.features(u))
            new = a * y + phi @ truth + sd * rng.standard_normal()
            gain = P @ phi / (phi @ P @ phi + sd**2)
            mean = mean + gain * (new - a * y - phi @ mean)
            P = P - np.outer(gain, phi @ P)
            y = new
            if day >= 4:
                errors.append(y - 14.0)
    # 40 errors: their root mean square scatters by 11 % around the floor of 0.233
    assert np.sqrt(np.mean(np.square(errors))) < 0.233 * 1.35


# ---------------------------------------------------------------- the policy


def make_policy(linear, **changes):
    arguments = {
        "targets": [TargetSpec(linear.vcv, 14.0)],
        "n_paths": S,
        "settings": SETTINGS,
        "max_change": {"temperature": 0.4},
        "rollout_functions": (linear.draw_paths, linear.rollout),
        **changes,
    }
    return BEDPolicy(linear.make_model(), SPACE, **arguments)


def test_policy_names_what_it_decides_and_remembers(linear):
    policy = make_policy(linear, allow_write=True)
    decision = policy.decide(FACE, 7, seed=3)
    assert list(decision.recommended_controls) == list(CONTROL_NAMES)
    assert decision.day == 7 and decision.timestamp is None and decision.allow_write
    assert list(decision.current_state) == list(STATE_ORDER)
    assert len(decision.forecast_mean["VCV"]) == 3
    assert decision.explanation["targets"][0]["species"] == "VCV"
    assert set(decision.explanation["move_gains"]) == set(CONTROL_NAMES)
    assert policy.history == [decision]
    policy.history.clear()
    assert len(policy.history) == 1
    # given the set-points in force, the past does not matter: a restart decides the same
    now = {name: 0.5 * (b.lo + b.hi) for name, b in SPACE.control_bounds.items()}
    again = policy.decide(FACE, 7, seed=3, u_now=now)
    fresh = make_policy(linear, allow_write=True).decide(FACE, 7, seed=3, u_now=now)
    assert again == fresh
    held = policy.decide(FACE, 8, u_now=now, fixed={"agitation": 800.0})
    assert held.recommended_controls["agitation"] == 800.0


def test_policy_takes_a_belief_and_a_plain_surrogate(linear):
    policy = make_policy(linear)
    particles = jnp.broadcast_to(linear.c0, (10, 9))
    decision = policy.decide(SimpleNamespace(particles=particles), 1)
    assert decision.current_state["VCD"] == pytest.approx(56.0)

    lower, upper = map(np.asarray, SPACE.bounds_array)
    X = lower + (upper - lower) * np.random.default_rng(0).random((60, 6))
    y = -(((X[:, 3] - 36.1) / 2.5) ** 2)
    plain = gaussian_process(
        X, y, lengthscale=jnp.asarray(2 * (upper - lower)), variance=0.01, constant=y.mean()
    )
    quick = make_policy(linear, acqf_name="UCB", n_restarts=2, n_raw_samples=16, max_change=None)
    decision = quick.decide(FACE, 2, plain)
    assert decision.recommended_controls["temperature"] == pytest.approx(36.1, abs=0.4)
    assert decision.forecast_mean == {} and decision.explanation["search"]["n_evals"] > 16


def test_targets_come_from_the_design_space(linear):
    policy = make_policy(linear, targets=None)
    assert [t.species for t in policy.targets] == ["VCV"]
    bare = SPACE.model_copy(update={"vcv_target": None, "titer_target": None})
    with pytest.raises(ConfigError, match="nothing to track"):
        BEDPolicy(None, bare)


def test_fallbacks_of_a_decision_are_said(linear):
    policy = make_policy(linear)
    middle = {name: 0.5 * (b.lo + b.hi) for name, b in SPACE.control_bounds.items()}
    particles = jnp.broadcast_to(linear.c0, (10, 9))
    some = SimpleNamespace(particles=particles.at[0, 4].set(jnp.nan))
    whole = SimpleNamespace(particles=particles[1:])
    found = policy.decide(some, 1, u_now=middle)
    assert found.explanation["remarks"] == [
        "1 of 10 particles of the belief were not finite and were left out."
    ]
    assert found.recommended_controls == policy.decide(whole, 1, u_now=middle).recommended_controls
    # nothing finite at all: what is in force stays
    lost = policy.decide(SimpleNamespace(particles=particles * jnp.nan), 1, u_now=middle)
    assert lost.recommended_controls == middle and lost.explanation["is_fallback"]
    assert "set-points in force are kept" in lost.explanation["remarks"][0]
    warm = policy.decide(whole, 1, u_now={**middle, "temperature": 37.8})
    assert 37.4 <= warm.recommended_controls["temperature"] <= 37.5
    assert "led inside: temperature" in warm.explanation["remarks"][0]
    # no step of 0.4 reaches the space: the rate limit is kept all the same
    hot = policy.decide(whole, 1, u_now={**middle, "temperature": 39.0})
    assert hot.recommended_controls["temperature"] == pytest.approx(38.6)
    assert "as fast as the rate limit allows: temperature" in hot.explanation["remarks"][0]
    # agitation alone decides: below its lowest value nothing keeps more
    strict = make_policy(linear, chance=ChanceConstraint(99.5)).decide(whole, 1, u_now=middle)
    assert any("Via >= 99.5 is kept with" in text for text in strict.explanation["remarks"])


@pytest.mark.parametrize("changes", [{"target": np.nan}, {"weight": -1.0}, {"scale": np.inf}])
def test_unusable_targets_are_named(changes):
    with pytest.raises(ConfigError, match="must be finite"):
        TargetSpec(1, **{"target": 14.0, **changes})


def test_particles_are_matched_to_paths():
    state = jnp.arange(45.0).reshape(5, 9)
    few = match_particles(state, 3, key=jax.random.key(0))
    assert few.shape == (3, 9) and len({float(row[0]) for row in few}) == 3
    many = np.asarray(match_particles(state, 10, key=jax.random.key(0)))
    np.testing.assert_array_equal(np.sort(many[:, 0]), np.repeat(np.asarray(state[:, 0]), 2))
    assert match_particles(state[0], 4, key=jax.random.key(0)).shape == (4, 9)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda p, _: p.decide(FACE.at[2].set(jnp.nan), 1), DataError, "lacks Glc"),
        (lambda p, _: p.decide(FACE[:5], 1), DataError, "STATE_ORDER|in the order"),
        (lambda p, _: p.decide(FACE, 1, u_now=[1.0]), ConfigError, "one finite value"),
        (lambda p, _: p.decide(FACE, 1, u_now={"temperature": 36.0}), ConfigError, "lacks"),
        (lambda p, _: p.decide(FACE, 1, fixed={"stirring": 1.0}), ConfigError, "not a control"),
        (lambda p, _: p.decide(FACE, -1), ConfigError, "count from 0"),
        (lambda p, _: p.decide(FACE, 1, seed=-3), ConfigError, "integer from 0"),
        (lambda p, _: p.decide(FACE, 1, best_f=float("nan")), ConfigError, "finite score"),
        (
            lambda p, _: p.decide(SimpleNamespace(particles=jnp.zeros((0, 9))), 1),
            DataError,
            "at least one",
        ),
        (lambda _, f: f(acqf_name="qEHVI").decide(FACE, 1), ConfigError, "several objectives"),
        (lambda _, f: f(acqf_name="best"), ConfigError, "unknown acquisition"),
        (lambda _, f: f(n_paths=0), ConfigError, "at least one path"),
    ],
)
def test_policy_refuses_by_name(linear, call, error, words):
    policy = make_policy(linear)
    with pytest.raises(error, match=words):
        call(policy, lambda **changes: make_policy(linear, **changes))


# ---------------------------------------------------------------- the surrogate


def test_roll_out_surrogate_ignores_keys_and_embeds_part_of_the_controls(scene, linear):
    paths = linear.draw_paths(scene.model, S, key=jax.random.key(0))
    whole = RolloutSurrogate(scene.model, paths, linear.c0, scene.ofv, 0, rollout=linear.rollout)
    part = RolloutSurrogate(
        scene.model,
        paths,
        linear.c0,
        scene.ofv,
        0,
        rollout=linear.rollout,
        template=scene.middle,
        positions=(1, 0),
    )
    X = scene.middle[None, :].at[0, :2].set(jnp.asarray([1.8, 0.2]))
    one = whole.sample(jax.random.key(1), X, S)
    np.testing.assert_array_equal(one, whole.sample(jax.random.key(2), X))
    np.testing.assert_array_equal(part.sample(None, jnp.asarray([[0.2, 1.8]])), one)
    mean, variance = whole.posterior(X)
    np.testing.assert_allclose(mean, jnp.mean(one, axis=0))
    np.testing.assert_allclose(variance, jnp.var(one, axis=0))
    with pytest.raises(ConfigError, match="draw more paths"):
        whole.sample(None, X, S + 1)
    # analytic names become Monte Carlo on a surrogate that is not Gaussian
    best_f, row = incumbent_value(whole, jnp.concatenate([scene.middle[None, :], X]))
    value = build_acquisition("EI", whole, best_f=best_f)(X)
    np.testing.assert_allclose(value, jnp.mean(jnp.maximum(one[:, 0] - best_f, 0.0)))
    assert row in (0, 1)
