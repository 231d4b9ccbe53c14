"""The factory of acquisition functions, by name.

Ten names that comparable libraries know: PI, EI, LogEI, UCB (closed form where the surrogate is
Gaussian, Monte Carlo otherwise), qEI, qLogEI, qUCB (batches, Monte Carlo), and qEHVI, qNEHVI,
qNParEGO (several objectives, Monte Carlo). Three more of ours: qLogNEI, qLogNEHVI (logarithms of
noisy improvements) and qKG (knowledge gradient). Every one is an `equinox` module: a pytree that
is called with a batch of candidates `(q, d)` in their own units and returns one number, more is
better.

Reference:
    Balandat et al. (2020), BoTorch: a framework for efficient Monte-Carlo Bayesian
    optimization, whose names and conventions are kept.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from perfusio_jax._core import Array, ArrayLike, ConfigError, Float
from perfusio_jax._core.programs import compiled
from perfusio_jax.bed.acquisition import analytic, directions, montecarlo, multiobjective
from perfusio_jax.bed.acquisition.boxes import FEW, BoxDecomposition, compact, nondominated_boxes
from perfusio_jax.bed.acquisition.draws import Constraint, Draws, OutcomeConstraint, make_base
from perfusio_jax.bed.acquisition.joint import joint_base
from perfusio_jax.bed.acquisition.knowledge import KnowledgeGradient
from perfusio_jax.bed.acquisition.wrappers import CostWeighted
from perfusio_jax.bed.optimiser.maximand import Acquisition as Acquisition

ACQUISITION_NAMES: Final[tuple[str, ...]] = (
    "PI",
    "EI",
    "LogEI",
    "UCB",
    "qEI",
    "qLogEI",
    "qUCB",
    "qEHVI",
    "qNEHVI",
    "qNParEGO",
)
"""Names every comparable library knows; `build_acquisition` takes them and `OWN_ACQUISITIONS`."""

OWN_ACQUISITIONS: Final[tuple[str, ...]] = ("qLogNEI", "qLogNEHVI", "qKG")
"""Further names `build_acquisition` takes."""

MULTI_OBJECTIVE: Final = frozenset({"qEHVI", "qNEHVI", "qLogNEHVI", "qNParEGO"})
"""Names that need a surrogate of several objectives."""

_ANALYTIC: Final = {
    "PI": analytic.ProbabilityOfImprovement,
    "EI": analytic.ExpectedImprovement,
    "LogEI": analytic.LogExpectedImprovement,
    "UCB": analytic.UpperConfidenceBound,
}
_MONTE_CARLO: Final = {
    "PI": montecarlo.MCProbabilityOfImprovement,
    "EI": montecarlo.MCExpectedImprovement,
    "LogEI": montecarlo.MCLogExpectedImprovement,
    "UCB": montecarlo.MCUpperConfidenceBound,
}
# building is an edge a user calls: op by op it would take seconds
_boxes = compiled(nondominated_boxes)
_noisy_boxes = compiled(multiobjective.noisy_boxes)
_noisy_front = compiled(multiobjective.noisy_front)
_noisy_log_improvement = compiled(montecarlo.noisy_log_improvement)
_noisy_parego = compiled(multiobjective.noisy_parego)
_directional = compiled(directions.directional_improvement)
_NEEDS_BEST_F: Final = frozenset({"PI", "EI", "LogEI"})
_MULTI_OPTIONS: Final[dict[str, frozenset[str]]] = {
    "qEHVI": frozenset({"n_directions"}),
    "qNEHVI": frozenset({"n_directions"}),
    "qLogNEHVI": frozenset({"tau_relu", "tau_max"}),
    "qNParEGO": frozenset({"augmentation"}),
    "qLogNEI": frozenset({"tau_relu", "tau_max"}),
    "qKG": frozenset({"noise"}),
}


class FallbackWarning(UserWarning):
    """Something given was unusable and a documented substitute was taken."""


def build_acquisition(
    name: str,
    model: Any,
    best_f: ArrayLike | None = None,
    beta: float = 0.2,
    ref_point: ArrayLike | Sequence[float] | None = None,
    partitioning: BoxDecomposition | None = None,
    sampler: int | ArrayLike | None = None,
    constraints: Sequence[Callable[[Array], Array]] | None = None,
    *,
    q: int = 1,
    X_pending: ArrayLike | None = None,
    X_baseline: ArrayLike | None = None,
    Y_baseline: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    eta: float = 1e-3,
    fat: bool = False,
    cost: Callable[[Array], Array] | None = None,
    cost_power: float = 1.0,
    seed: int = 0,
    **options: Any,
) -> Acquisition:
    """Build an acquisition function by name.

    The positional order is the one users of comparable libraries expect; pass everything
    after `model` by keyword.

    Args:
        name: One of `ACQUISITION_NAMES` or `OWN_ACQUISITIONS`.
        model: Surrogate with `posterior(X)` and `sample(key, X, n)`, more is better.
        best_f: Incumbent, required by PI, EI, LogEI, qEI, qLogEI; one number, or for Monte
            Carlo forms one per sample (the incumbent on the same paths). For qKG the best
            posterior mean, which is subtracted if it is given.
        beta: Weight of exploration of UCB and qUCB [-].
        ref_point: Reference point of qEHVI, qNEHVI and qLogNEHVI, worse than every point that
            counts.
        partitioning: Boxes of the non-dominated region for qEHVI; made from `Y_baseline` if
            that is given instead.
        sampler: Number of Sobol samples (512; for qKG of fantasies, 64), or base samples
            `(S, n)` / `(S, n, m)`.
        constraints: Callables `c(X (n,d)) -> (n,)` or `(S,n)`, feasible where at most zero;
            `OutcomeConstraint(model, limit=...)` for another outcome with a surrogate of its
            own, which gets its part of one joint set of base samples here. They multiply
            improvements by a smooth step, sample by sample, in closed forms by its mean; UCB
            kinds subtract a penalty on the logarithm of that mean; qKG takes none.
        q: Candidates in a batch; base samples are made for this many.
        X_pending: Candidates under way `(p, d)`; Monte Carlo kinds only (PI then takes its
            Monte Carlo form). A row of NaN is an empty place, so that their number may change
            without a new compile.
        X_baseline: Points already run `(P, d)`, required by qNEHVI, qLogNEHVI, qLogNEI and
            qNParEGO.
        Y_baseline: Their observed objectives `(P, m)`, for qEHVI; rows with NaN are left out.
        weights: Weights of the objectives for qNParEGO; drawn from `seed` if not given, with
            the number of objectives taken from `ref_point` or the surrogate.
        eta: Width of the smooth step of a constraint, unit of the constraint.
        fat: Whether that step has a tail that falls like a power instead of exponentially.
        cost: `cost(X (q,d)) -> (q,)`, above zero: improvements are divided by its sum.
        cost_power: Exponent of the cost [-].
        seed: Seed of the base samples, of the weights and of the directions.
        **options: Passed on: `tau`, `tau_relu`, `tau_max`, `penalty`, `augmentation`, `noise`
            (qKG on a surrogate that does not hold it), `n_directions` (qEHVI and qNEHVI by
            directions: approximate, for more than three objectives or large batches).

    Returns:
        A pytree, callable with `(q, d)`.

    Raises:
        ConfigError: If the name is unknown or a required argument is missing or unusable; it
            is a ValueError too.
    """
    if name not in ACQUISITION_NAMES + OWN_ACQUISITIONS:
        raise ConfigError(
            f"unknown acquisition {name!r}; the names are "
            f"{', '.join(ACQUISITION_NAMES + OWN_ACQUISITIONS)}."
        )
    if q < 1:
        raise ConfigError(f"q={q} was given; a batch has at least one candidate.")
    if not isinstance(eta, Tracer) and not float(eta) > 0:
        raise ConfigError(f"eta={eta} was given; the width of a constraint's step is above zero.")
    baseline = _points("X_baseline", X_baseline)
    pending, is_pending = _places(X_pending)
    common = _Common(
        model, sampler, tuple(constraints or ()), pending, is_pending, eta, fat, seed, q
    )
    kind = name.removeprefix("q")
    if name in _MULTI_OPTIONS:
        _check_options(name, options, _MULTI_OPTIONS[name])
        given = _Given(best_f, ref_point, partitioning, Y_baseline, weights)
        acqf = _from_baseline(name, common, baseline, given, options)
    else:
        _check_incumbent(name, kind, best_f, beta)
        acqf = _single(name, kind, common, beta if kind == "UCB" else best_f, options)
    if cost is None:
        return acqf
    if kind == "UCB":
        raise ConfigError(
            f"{name} is not an improvement, so that a cost cannot divide it; use an improvement "
            "such as qLogEI, or subtract the cost in the objective."
        )
    return CostWeighted(acqf, cost, cost_power, is_log=kind.startswith("Log"))


def incumbent_value(model: Any, X: ArrayLike) -> tuple[Float[Array, "S"], int]:
    """The best of some candidates by posterior mean, as its value on every path.

    Args:
        model: Surrogate that holds its own paths, one objective.
        X: Candidates `(k, d)`, for example the set-points in force and the last plan.

    Returns:
        Samples of the best candidate's value `(S,)`, to be passed as `best_f`, and its row.
    """
    samples = model.sample(None, jnp.atleast_2d(jnp.asarray(X, float)))
    best = int(jnp.argmax(jnp.mean(samples, axis=0)))
    return samples[:, best], best


class _Common(NamedTuple):
    """Arguments every acquisition shares, and how they become `Draws`."""

    model: Any
    sampler: Any
    constraints: tuple[Constraint, ...]
    pending: Array | None
    is_pending: Array | None
    eta: float
    fat: bool
    seed: int
    q: int

    @property
    def n_pending(self) -> int:
        return 0 if self.pending is None else self.pending.shape[0]

    def draws(self, n_objectives: int | None, n_points: int, *, join_pending: bool = True) -> Draws:
        dealt = joint_base(
            self.model, self.sampler, self.constraints, n_points, n_objectives, seed=self.seed
        )
        return Draws(
            model=self.model,
            base=dealt.base,
            constraints=dealt.constraints,
            pending=self.pending if join_pending else None,
            is_pending=self.is_pending if join_pending else None,
            eta=self.eta,
            fat=self.fat,
            seed=self.seed,
            n_samples=dealt.n_samples,
        )


class _Given(NamedTuple):
    best_f: Any
    ref_point: Any
    partitioning: Any
    Y_baseline: Any
    weights: Any


def _single(
    name: str, kind: str, common: _Common, value: Any, options: dict[str, Any]
) -> Acquisition:
    is_gaussian = getattr(common.model, "is_gaussian", True)
    if name in _ANALYTIC and is_gaussian and not (name == "PI" and common.n_pending):
        if common.n_pending:
            raise ConfigError(f"{name} in closed form takes no pending points; use q{name}.")
        if jnp.ndim(jnp.asarray(value)) != 0:
            raise ConfigError(f"{name} in closed form takes one `best_f`, not one per sample.")
        outcomes = [c for c in common.constraints if isinstance(c, OutcomeConstraint)]
        if kind in _NEEDS_BEST_F and any(c.model is common.model for c in outcomes):
            sampled = "qEI" if kind == "PI" else f"q{name}"
            raise ConfigError(
                f"{name} in closed form takes improvement and feasibility as independent, and a "
                f"constraint here is on the objective itself; use {sampled}."
            )
        return _make(_ANALYTIC[name], name, common.draws(None, 0), value, options)
    draws = common.draws(None, common.q + common.n_pending)
    return _make(_MONTE_CARLO[kind], name, draws, value, options)


def _from_baseline(
    name: str, common: _Common, baseline: Array | None, given: _Given, options: dict[str, Any]
) -> Acquisition:
    if name == "qKG":
        return _knowledge(common, given.best_f, options)
    ref = None if given.ref_point is None else jnp.asarray(given.ref_point, float)
    is_usable = ref is None or isinstance(ref, Tracer) or bool(np.all(np.isfinite(ref)))
    if ref is not None and not (ref.ndim == 1 and is_usable):
        raise ConfigError(
            f"ref_point={given.ref_point} was given; it must be one finite number per objective."
        )
    n_directions = options.get("n_directions")
    if name == "qEHVI":
        return _expected_hypervolume(common, ref, given, n_directions)
    if baseline is None:
        raise ConfigError(f"{name} needs `X_baseline`: the points already run, one per row.")
    n_run = baseline.shape[0]
    is_there = jnp.ones((n_run,), bool)
    if common.pending is not None and common.is_pending is not None:
        # an empty place holds a copy of a point that was run
        pending = jnp.where(common.is_pending[:, None], common.pending, baseline[:1])
        baseline = jnp.concatenate([baseline, pending], axis=0)
        is_there = jnp.concatenate([is_there, common.is_pending])
    n_points = baseline.shape[0] + common.q
    if name == "qLogNEI":
        draws = common.draws(None, n_points, join_pending=False)
        return _noisy_log_improvement(draws, baseline, is_there, **options)
    if name == "qNParEGO":
        weights = _weights(common, baseline, ref, given.weights)
        draws = common.draws(weights.shape[0], n_points, join_pending=False)
        return _noisy_parego(draws, baseline, is_there, weights, n_run=n_run, **options)
    if ref is None:
        raise ConfigError(f"{name} needs `ref_point`: one value per objective.")
    m = ref.shape[0]
    draws = common.draws(m, n_points, join_pending=False)
    if n_directions is not None:
        rest, known = _noisy_front(draws, baseline, is_there, ref)
        acqf = _directional(rest, known, ref, n_directions=n_directions, seed=common.seed)
        _check_reference(name, jnp.any(acqf.best > 0), ref)
        return acqf
    _check_dimension(name, m, baseline.shape[0])
    rest, boxes = _noisy_boxes(draws, baseline, is_there, ref)
    # without a front the only box that is not empty starts at the reference
    front = (boxes.lower > ref.reshape(1, 1, -1)) & (boxes.upper > boxes.lower)
    _check_reference(name, jnp.any(front), ref)
    boxes = compact(boxes)
    if name == "qNEHVI":
        return multiobjective.NoisyExpectedHypervolumeImprovement(rest, boxes)
    return multiobjective.LogNoisyExpectedHypervolumeImprovement(rest, boxes, **options)


def _expected_hypervolume(
    common: _Common, ref: Array | None, given: _Given, n_directions: int | None
) -> Acquisition:
    partitioning = given.partitioning
    n_points = common.q + common.n_pending
    if partitioning is None:
        if ref is None or given.Y_baseline is None:
            raise ConfigError(
                "qEHVI needs `ref_point` and either `partitioning` (from `nondominated_boxes`) "
                "or `Y_baseline`, the objectives observed so far."
            )
        known = _known_objectives(given.Y_baseline, ref)
        _check_reference("qEHVI", jnp.any(jnp.all(known > ref[None, :], axis=1)), ref)
        if n_directions is not None:
            draws = common.draws(ref.shape[0], n_points)
            return _directional(
                draws, known[None], ref, n_directions=n_directions, seed=common.seed
            )
        _check_dimension("qEHVI", ref.shape[0], known.shape[0])
        partitioning = compact(_boxes(known, ref))
    if not isinstance(partitioning, BoxDecomposition):
        raise ConfigError(
            f"partitioning is a {type(partitioning).__name__}; it must be a BoxDecomposition, "
            "made by `nondominated_boxes(Y, ref_point)`."
        )
    draws = common.draws(partitioning.lower.shape[-1], n_points)
    return multiobjective.ExpectedHypervolumeImprovement(draws, partitioning)


def _knowledge(common: _Common, best_f: Any, options: dict[str, Any]) -> KnowledgeGradient:
    model = common.model
    if not (hasattr(model, "mean") and hasattr(model, "covariance")):
        raise ConfigError(
            f"qKG needs a surrogate with `mean` and `covariance`, and {type(model).__name__} has "
            "not both; use qLogNEI or qLogEI."
        )
    noise = options.get("noise", getattr(model, "noise", None))
    if noise is None:
        raise ConfigError("qKG needs `noise`: the variance of the measurement noise.")
    if common.constraints:
        raise ConfigError("qKG takes no constraints; use qLogEI or qLogNEI.")
    noise = jnp.ravel(jnp.asarray(noise, float))
    if noise.shape != (1,) or not float(noise[0]) >= 0:
        raise ConfigError(
            f"noise={noise.tolist()} was given; qKG takes one objective and its noise variance, "
            "not negative."
        )
    sampler = 64 if common.sampler is None else common.sampler
    base, _ = make_base(model, sampler, common.q + common.n_pending, None, seed=common.seed)
    if base is None:
        raise ConfigError("qKG needs a surrogate with `sample_from`.")
    current = 0.0 if best_f is None else best_f
    return KnowledgeGradient(
        model, base, noise[0], jnp.asarray(current, float), common.pending, common.is_pending
    )


def _weights(common: _Common, baseline: Array, ref: Array | None, weights: Any) -> Array:
    if weights is None:
        m = ref.shape[0] if ref is not None else _count_objectives(common.model, baseline)
        weights = np.random.default_rng(common.seed).dirichlet(np.ones(m))
    if not isinstance(weights, Tracer):
        given = np.asarray(weights, float)
        if given.ndim != 1 or not (given >= 0).all() or not 0 < given.sum() < np.inf:
            raise ConfigError(
                f"weights={weights} were given; one number per objective is needed, none "
                "negative, not all zero."
            )
    return jnp.asarray(weights, float)


def _points(name: str, values: ArrayLike | None) -> Array | None:
    if values is None:
        return None
    points = jnp.atleast_2d(jnp.asarray(values, float))
    is_usable = isinstance(points, Tracer) or bool(np.all(np.isfinite(points)))
    if points.shape[0] == 0 or not is_usable:
        raise ConfigError(
            f"{name} of shape {points.shape} was given, with "
            f"{int(jnp.sum(~jnp.isfinite(points)))} entries that are not finite; it must hold at "
            "least one point and only numbers."
        )
    return points


def _places(X_pending: ArrayLike | None) -> tuple[Array | None, Array | None]:
    """Pending points with empty places filled, and which places hold a point."""
    if X_pending is None:
        return None, None
    pending = jnp.atleast_2d(jnp.asarray(X_pending, float))
    if pending.shape[0] == 0:
        return None, None
    is_there = ~jnp.any(jnp.isnan(pending), axis=1)
    return jnp.where(is_there[:, None], pending, 0.0), is_there


def _known_objectives(Y_baseline: Any, ref: Array) -> Array:
    known = jnp.atleast_2d(jnp.asarray(Y_baseline, float))
    if known.shape[1] != ref.shape[0]:
        raise ConfigError(
            f"Y_baseline of shape {known.shape} and ref_point of {ref.shape[0]} objectives were "
            "given; they must agree."
        )
    is_complete = ~jnp.any(jnp.isnan(known), axis=1, keepdims=True)
    if not isinstance(is_complete, Tracer) and not bool(jnp.any(is_complete)):
        raise ConfigError(
            f"every one of the {known.shape[0]} rows of Y_baseline holds a NaN: there is no known "
            "result to improve on. Leave qEHVI for later, or give the results."
        )
    return jnp.where(is_complete, known, ref[None, :])


def _check_incumbent(name: str, kind: str, best_f: Any, beta: float) -> None:
    if kind == "UCB":
        if not float(beta) >= 0:
            raise ConfigError(f"beta={beta} was given; it must not be negative.")
        return
    if kind in _NEEDS_BEST_F and best_f is None:
        raise ConfigError(
            f"{name} needs `best_f`: the incumbent value, higher is better (for roll-outs, one "
            "value per path; see `incumbent_value`)."
        )
    if not isinstance(best_f, Tracer) and bool(np.isnan(np.asarray(best_f)).any()):
        raise ConfigError(
            f"{name} was given an incumbent `best_f` that is NaN; leave missing results out, or "
            "use qLogNEI, which needs no incumbent."
        )


def _check_reference(name: str, is_passed: Array, ref: Array) -> None:
    if not isinstance(is_passed, Tracer) and not bool(is_passed):
        warnings.warn(
            f"{name}: no known feasible point is better than the reference point {ref.tolist()} in "
            "every objective. The search goes on from an empty front: everything above the "
            "reference counts as improvement, nothing below it. Lower the reference point to rank "
            "points there.",
            FallbackWarning,
            stacklevel=4,
        )


def _check_dimension(name: str, m: int, n_points: int) -> None:
    if m not in (2, 3) and not (m > 3 and n_points <= FEW):
        raise ConfigError(
            f"{name} is exact for 2 or 3 objectives, or for {FEW} known points at most, and was "
            f"given a reference point of {m} and {n_points} points; use qNParEGO, which takes any "
            "number, or say `n_directions` (for example 128) to approximate the hypervolume with "
            "qEHVI or qNEHVI."
        )


def _check_options(name: str, options: dict[str, Any], allowed: frozenset[str] | set[str]) -> None:
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise ConfigError(
            f"{name} does not take {', '.join(unknown)}; its options are "
            f"{', '.join(sorted(allowed)) or 'none'}."
        )


def _make(kind: Any, name: str, draws: Draws, value: Any, options: dict[str, Any]) -> Any:
    _check_options(name, options, set(kind.__dataclass_fields__) - {"draws", "best_f", "beta"})
    return kind(draws, value, **options)


def _count_objectives(model: Any, X: Array) -> int:
    mean, _ = jax.eval_shape(model.posterior, X)
    return mean.shape[-1] if mean.ndim == 2 else 1
