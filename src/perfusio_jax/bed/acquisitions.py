"""The factory of acquisition functions, by name.

Ten acquisitions: PI, EI, LogEI, UCB (closed form where the surrogate is Gaussian, Monte Carlo
on roll-outs), qEI, qLogEI, qUCB (batches, Monte Carlo), and qEHVI, qNEHVI, qNParEGO (several
objectives, Monte Carlo). Every one is an `equinox` module: a pytree that is called with a batch
of candidates `(q, d)` in their own units and returns one number, more is better.

Reference:
    Balandat et al. (2020), BoTorch: a framework for efficient Monte-Carlo Bayesian
    optimization, whose names and conventions are kept.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Array, ArrayLike, ConfigError, Float, Scalar
from perfusio_jax.bed import analytic, montecarlo, multiobjective
from perfusio_jax.bed.boxes import BoxDecomposition, nondominated_boxes
from perfusio_jax.bed.draws import Constraint, Draws, make_base

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
"""Names `build_acquisition` knows."""

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
_boxes = eqx.filter_jit(nondominated_boxes)
_noisy_hypervolume = eqx.filter_jit(multiobjective.noisy_hypervolume)
_NEEDS_BEST_F: Final = frozenset({"PI", "EI", "LogEI"})


class Acquisition(Protocol):
    """A batch of candidates in, one number out; more is better."""

    def __call__(self, X: Float[Array, "q d"]) -> Scalar:
        """Value of a batch."""
        ...


def build_acquisition(
    name: str,
    model: Any,
    best_f: ArrayLike | None = None,
    beta: float = 0.2,
    ref_point: Sequence[float] | None = None,
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
    seed: int = 0,
    **options: Any,
) -> Acquisition:
    """Build an acquisition function by name.

    The positional order is the one users of comparable libraries expect; pass everything
    after `model` by keyword.

    Args:
        name: One of `ACQUISITION_NAMES`.
        model: Surrogate with `posterior(X)` and `sample(key, X, n)`, more is better.
        best_f: Incumbent, required by PI, EI, LogEI, qEI, qLogEI; one number, or for Monte
            Carlo forms one per sample (the incumbent on the same paths).
        beta: Weight of exploration of UCB and qUCB [-].
        ref_point: Reference point of qEHVI and qNEHVI, worse than every point that counts.
        partitioning: Boxes of the non-dominated region for qEHVI; made from `Y_baseline` if
            that is given instead.
        sampler: Number of Sobol samples (512), or base samples `(S, n)` / `(S, n, m)`.
        constraints: Callables `c(X (n,d)) -> (n,)` or `(S,n)`, feasible where at most zero.
            They multiply improvements by a smooth step; UCB kinds subtract a penalty.
        q: Candidates in a batch; base samples are made for this many.
        X_pending: Candidates under way `(p, d)`; Monte Carlo kinds only.
        X_baseline: Points already run `(P, d)`, required by qNEHVI and qNParEGO.
        Y_baseline: Their observed objectives `(P, m)`, for qEHVI.
        weights: Weights of the objectives for qNParEGO; drawn from `seed` if not given, with
            the number of objectives taken from `ref_point` or the surrogate.
        eta: Width of the smooth step of a constraint, unit of the constraint.
        seed: Seed of the base samples and of the weights.
        **options: Passed on: `tau`, `tau_relu`, `tau_max`, `penalty`, `augmentation`.

    Returns:
        A pytree, callable with `(q, d)`.

    Raises:
        ConfigError: If the name is unknown or a required argument is missing or unusable; it
            is a ValueError too.
    """
    if name not in ACQUISITION_NAMES:
        raise ConfigError(
            f"unknown acquisition {name!r}; the names are {', '.join(ACQUISITION_NAMES)}."
        )
    if q < 1:
        raise ConfigError(f"q={q} was given; a batch has at least one candidate.")
    checked = tuple(constraints or ())
    pending = None if X_pending is None else jnp.atleast_2d(jnp.asarray(X_pending, float))
    common = _Common(model, sampler, checked, pending, eta, seed, q)
    if name in ("qEHVI", "qNEHVI", "qNParEGO"):
        baseline = None if X_baseline is None else jnp.atleast_2d(jnp.asarray(X_baseline, float))
        return _multi_objective(
            name, common, baseline, (ref_point, partitioning, Y_baseline, weights), options
        )
    kind = name.removeprefix("q")
    if kind in _NEEDS_BEST_F and best_f is None:
        raise ConfigError(
            f"{name} needs `best_f`: the incumbent value, higher is better (for roll-outs, one "
            "value per path; see `incumbent_value`)."
        )
    value = beta if kind == "UCB" else best_f
    if kind == "UCB" and not float(beta) >= 0:
        raise ConfigError(f"beta={beta} was given; it must not be negative.")
    is_gaussian = getattr(model, "is_gaussian", True)
    if name in _ANALYTIC and is_gaussian:
        if pending is not None:
            raise ConfigError(f"{name} in closed form takes no pending points; use q{name}.")
        if jnp.ndim(jnp.asarray(value)) != 0:
            raise ConfigError(f"{name} in closed form takes one `best_f`, not one per sample.")
        return _make(_ANALYTIC[name], name, common.draws(None, 0), value, options)
    n_points = q + (0 if pending is None else pending.shape[0])
    return _make(_MONTE_CARLO[kind], name, common.draws(None, n_points), value, options)


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


class _Common:
    """Arguments every acquisition shares, and how they become `Draws`."""

    def __init__(
        self,
        model: Any,
        sampler: Any,
        constraints: tuple[Constraint, ...],
        pending: Array | None,
        eta: float,
        seed: int,
        q: int,
    ):
        self.model, self.sampler, self.constraints = model, sampler, constraints
        self.pending, self.eta, self.seed, self.q = pending, eta, seed, q

    def draws(self, n_objectives: int | None, n_points: int, *, join_pending: bool = True) -> Draws:
        base, n_samples = None, 0
        if n_points:
            base, n_samples = make_base(
                self.model, self.sampler, n_points, n_objectives, seed=self.seed
            )
        return Draws(
            model=self.model,
            base=base,
            constraints=self.constraints,
            pending=self.pending if join_pending else None,
            eta=self.eta,
            seed=self.seed,
            n_samples=n_samples,
        )


def _make(kind: Any, name: str, draws: Draws, value: Any, options: dict[str, Any]) -> Any:
    allowed = sorted(set(kind.__dataclass_fields__) - {"draws", "best_f", "beta"})
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise ConfigError(
            f"{name} does not take {', '.join(unknown)}; its options are "
            f"{', '.join(allowed) or 'none'}."
        )
    return kind(draws, value, **options)


def _multi_objective(
    name: str,
    common: _Common,
    baseline: Array | None,
    given: tuple[Any, Any, Any, Any],
    options: dict[str, Any],
) -> Acquisition:
    ref_point, partitioning, Y_baseline, weights = given
    allowed = {"augmentation"} if name == "qNParEGO" else set()
    if set(options) - allowed:
        raise ConfigError(
            f"{name} does not take {', '.join(sorted(set(options) - allowed))}; its options are "
            f"{', '.join(sorted(allowed)) or 'none'}."
        )
    ref = None if ref_point is None else jnp.asarray(ref_point, float)
    n_pending = 0 if common.pending is None else common.pending.shape[0]
    if name == "qEHVI":
        return _expected_hypervolume(common, ref, partitioning, Y_baseline, n_pending)
    if baseline is None:
        raise ConfigError(f"{name} needs `X_baseline`: the points already run, one per row.")
    if common.pending is not None:
        baseline = jnp.concatenate([baseline, common.pending], axis=0)
    n_points = baseline.shape[0] + common.q
    if name == "qNEHVI":
        if ref is None:
            raise ConfigError("qNEHVI needs `ref_point`: one value per objective.")
        _check_dimension(name, ref.shape[0])
        draws = common.draws(ref.shape[0], n_points, join_pending=False)
        return _noisy_hypervolume(draws, baseline, ref)
    if weights is None:
        m = ref.shape[0] if ref is not None else _count_objectives(common.model, baseline)
        rng = np.random.default_rng(common.seed)
        weights = rng.dirichlet(np.ones(m))
    weights = jnp.asarray(weights, float)
    draws = common.draws(weights.shape[0], n_points, join_pending=False)
    return multiobjective.noisy_parego(draws, baseline, weights, **options)


def _expected_hypervolume(
    common: _Common, ref: Array | None, partitioning: Any, Y_baseline: Any, n_pending: int
) -> Acquisition:
    if partitioning is None:
        if ref is None or Y_baseline is None:
            raise ConfigError(
                "qEHVI needs `ref_point` and either `partitioning` (from `nondominated_boxes`) "
                "or `Y_baseline`, the objectives observed so far."
            )
        _check_dimension("qEHVI", ref.shape[0])
        known = jnp.atleast_2d(jnp.asarray(Y_baseline, float))
        partitioning = _boxes(known, ref)
    if not isinstance(partitioning, BoxDecomposition):
        raise ConfigError(
            f"partitioning is a {type(partitioning).__name__}; it must be a BoxDecomposition, "
            "made by `nondominated_boxes(Y, ref_point)`."
        )
    draws = common.draws(partitioning.lower.shape[-1], common.q + n_pending)
    return multiobjective.ExpectedHypervolumeImprovement(draws, partitioning)


def _check_dimension(name: str, m: int) -> None:
    if m not in (2, 3):
        raise ConfigError(
            f"{name} is exact for 2 or 3 objectives and was given a reference point of {m}; use "
            "qNParEGO, which takes any number."
        )


def _count_objectives(model: Any, X: Array) -> int:
    mean, _ = jax.eval_shape(model.posterior, X)
    return mean.shape[-1] if mean.ndim == 2 else 1
