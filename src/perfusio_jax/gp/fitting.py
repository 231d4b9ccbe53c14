"""Maximum a posteriori hyper-parameters: L-BFGS with restarts in one compiled call."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from perfusio_jax._core import ConfigError, Key, Result, Scalar, require_x64
from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.gp.exact_gp import MultiTaskRateGP
from perfusio_jax.gp.inference import log_evidence, log_posterior
from perfusio_jax.gp.layout import RateData
from perfusio_jax.gp.means import LinearMean, MechanisticPriorMean
from perfusio_jax.gp.noise import selected

_BOUNDS = (0.15, 30.0)


class FitConfig(eqx.Module):
    """Settings of the search."""

    max_iterations: int = eqx.field(static=True, default=60)
    """L-BFGS evaluations per start."""
    adam_iterations: int = eqx.field(static=True, default=300)
    """Adam iterations of the fallback."""
    n_restarts: int = eqx.field(static=True, default=2)
    """Starts: the given parameters, then random ones around them."""
    max_rows: int | None = eqx.field(static=True, default=None)
    """Search on at most this many rows, evenly spread; None takes all. Conditioning
    always uses all rows."""
    tolerance: Scalar = eqx.field(converter=lambda v: jnp.asarray(v, float), default=1e-3)
    """Stop when the largest gradient entry, per observed row, falls below this [-]."""
    learning_rate: Scalar = eqx.field(converter=lambda v: jnp.asarray(v, float), default=0.05)
    """Adam's rate [-]."""


class FitReport(NamedTuple):
    """How a fit went."""

    evidence: Float[Array, " iterations"]
    """Log evidence plus log prior along the best start's path; NaN beyond its end."""
    final: Scalar
    """Log evidence plus log prior reached, on the rows searched."""
    log_evidence: Scalar
    """Log evidence over all rows at the parameters returned."""
    restarts: Float[Array, " R"]
    """Value reached by each start."""
    n_iterations: Int[Array, ""]
    """Iterations of the best start."""
    converged: bool
    """Whether the gradient met the tolerance."""
    result: Result
    """Result code."""
    condition_number: Scalar
    """Condition of the whitened covariance over all rows [-]."""
    optimiser: str
    """"lbfgs" or "adam"."""
    at_bounds: tuple[str, ...]
    """Parameters at the edge of what is sensible, by name."""
    details: dict[str, Any]
    """Pipeline diagnostics (hybrid training adds its own)."""


def trainable_filter(model: MultiTaskRateGP) -> Any:
    """Mark what the evidence may move: kernel, noise, the mean's and the feature map's own.

    Args:
        model: Model.

    Returns:
        Tree of booleans; the constants of a mechanistic model stay untouched, and of the
        feature map only what its `trainable()` names moves.
    """
    spec: Any = jax.tree.map(lambda _: False, model)
    kernel = model.kernel
    where = [
        lambda m: m.kernel.state.lengthscale.raw,
        lambda m: m.kernel.day.variance.raw,
        lambda m: m.kernel.index_diagonal.raw,
        lambda m: m.likelihood.noise.raw,
    ]
    if kernel.rank:
        where.append(lambda m: m.kernel.index_factor)
    if kernel.extra_parameters():
        where.append(lambda m: m.kernel.extra_parameters())
    if isinstance(model.mean_module, LinearMean):
        where += [lambda m: m.mean_module.weights, lambda m: m.mean_module.bias]
    if isinstance(model.mean_module, MechanisticPriorMean):
        where.append(lambda m: m.mean_module.scale)
    for leaf in where:
        spec = eqx.tree_at(leaf, spec, replace_fn=lambda _: True)
    if hasattr(model.scaling, "trainable"):
        count = len(model.scaling.trainable())
        spec = eqx.tree_at(lambda m: m.scaling.trainable(), spec, (True,) * count)
    return spec


class _Run(NamedTuple):
    params: Any
    value: Array
    path: Array
    n_iterations: Array
    converged: Array


def _lbfgs(loss: Any, start: Array, config: FitConfig, scale: Array) -> _Run:
    """Optimistix' L-BFGS, stepped by hand so that the path of the evidence is kept."""
    import optimistix as optx

    solver = optx.LBFGS(rtol=1e-6, atol=1e-5, history_length=10)
    options = {"autodiff_mode": "bwd"}

    def objective(y: Array, _: Any) -> tuple[Array, None]:
        value = loss(y) / scale
        # the line search refuses infinity by itself, but would believe a NaN
        return jnp.where(jnp.isfinite(value), value, jnp.inf), None

    struct = jax.ShapeDtypeStruct((), start.dtype)
    state = solver.init(objective, start, None, options, struct, None, frozenset())
    dynamic, static = eqx.partition(state, eqx.is_array)

    def body(carry: Any) -> Any:
        y, dynamic, path, step, _, _ = carry
        state = eqx.combine(dynamic, static)
        y, state, _ = solver.step(objective, y, None, options, state, frozenset())
        value = state.f_info.f * scale
        size = jnp.max(jnp.abs(state.f_info.grad))
        done, _ = solver.terminate(objective, y, None, options, state, frozenset())
        dynamic, _ = eqx.partition(state, eqx.is_array)
        return y, dynamic, path.at[step].set(-value), step + 1, size, done

    def keep_going(carry: Any) -> Any:
        _, _, _, step, size, done = carry
        return (step < config.max_iterations) & (size >= config.tolerance) & ~done

    path = jnp.full((config.max_iterations,), jnp.nan)
    first = (start, dynamic, path, jnp.zeros((), int), jnp.full((), jnp.inf), jnp.zeros((), bool))
    best, dynamic, path, step, size, done = jax.lax.while_loop(keep_going, body, first)
    state = eqx.combine(dynamic, static)
    value = -state.f_info.f * scale
    is_fine = jnp.isfinite(value)
    converged = is_fine & ((size < config.tolerance) | done)
    return _Run(best, jnp.where(is_fine, value, -jnp.inf), path, step, converged)


def _adam(loss: Any, start: Any, config: FitConfig, scale: Array) -> _Run:
    """Adam; keeps the best point met and ignores non-finite steps."""
    import optax

    solver = optax.adam(config.learning_rate)

    def body(carry: Any, _: Any) -> Any:
        params, state, best, best_value = carry
        value, grad = jax.value_and_grad(loss)(params)
        is_better = value < best_value
        best = jax.tree.map(lambda a, b: jnp.where(is_better, a, b), params, best)
        best_value = jnp.where(is_better, value, best_value)
        grad = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g / scale, 0.0), grad)
        updates, state = solver.update(grad, state, params)
        size = jnp.max(jnp.stack([jnp.max(jnp.abs(g)) for g in jax.tree.leaves(grad)]))
        return (optax.apply_updates(params, updates), state, best, best_value), (value, size)

    first = (start, solver.init(start), start, jnp.full((), jnp.inf))
    (_, _, best, value), (path, sizes) = jax.lax.scan(
        body, first, None, length=config.adam_iterations
    )
    steps = jnp.asarray(config.adam_iterations)
    return _Run(best, -value, -path, steps, sizes[-1] < config.tolerance)


def _loss(params: Any, fixed: Any) -> Scalar:
    return -log_posterior(eqx.combine(params, fixed))


@compiled
def _search(
    model: MultiTaskRateGP, spec: Any, key: Key, config: FitConfig, method: str
) -> tuple[_Run, Array]:
    compiling("the fit of the process")
    params, fixed = eqx.partition(model, spec)
    # one flat vector: the optimiser's own graph stays small and compiles quickly
    centre, unravel = ravel_pytree(params)
    count = config.n_restarts if method == "lbfgs" else 1
    # the first start is the given one; the others are spread around it
    spread = jnp.where(jnp.arange(count) == 0, 0.0, 0.7)
    noise = jax.random.normal(key, (count, centre.size), centre.dtype)
    starts = centre[None, :] + spread[:, None] * noise
    scale = jnp.sum(model.data.row_present).astype(float)
    run = _lbfgs if method == "lbfgs" else _adam
    # one after the other: a batched loop would run every start as long as the slowest
    runs = jax.lax.map(
        lambda start: run(lambda p: _loss(unravel(p), fixed), start, config, scale), starts
    )
    best = jnp.argmax(jnp.where(jnp.isfinite(runs.value), runs.value, -jnp.inf))
    chosen = jax.tree.map(lambda leaf: leaf[best], runs)
    return chosen._replace(params=unravel(chosen.params)), runs.value


@compiled
def _finish(model: MultiTaskRateGP) -> tuple[MultiTaskRateGP, Array, Array]:
    fitted = model.condition()
    condition = fitted.state.solved.condition_number if fitted.state is not None else jnp.nan
    return fitted, log_evidence(model), jnp.asarray(condition)


def thin_rows(data: RateData, max_rows: int | None) -> RateData:
    """Evenly spread subset of the rows that hold data, of a fixed size.

    Args:
        data: Padded table.
        max_rows: Size of the subset; None or more than the capacity keeps the table.

    Returns:
        The subset, padded to `max_rows`.
    """
    if max_rows is None or max_rows >= data.inputs.shape[0]:
        return data
    rows = np.flatnonzero(np.asarray(data.row_present))
    if rows.size > max_rows:
        rows = rows[np.unique(np.linspace(0, rows.size - 1, max_rows).astype(int))]
    padding = np.flatnonzero(~np.asarray(data.row_present))
    chosen = np.concatenate([rows, padding[: max_rows - rows.size]])
    if chosen.size < max_rows:
        return data
    bare = dataclasses.replace(data, shared=None)
    thin = jax.device_put(jax.tree.map(lambda leaf: np.asarray(leaf)[chosen], bare))
    shared = None if data.shared is None else selected(data.shared, chosen)
    return dataclasses.replace(thin, shared=shared)


def fit(
    model: MultiTaskRateGP,
    *,
    key: Key,
    config: FitConfig | None = None,
    filter_spec: Any = None,
    method: str = "lbfgs",
) -> tuple[MultiTaskRateGP, FitReport]:
    """Maximise evidence times hyper-prior, then condition on all rows.

    L-BFGS from every start; if none ends finite, Adam from the given parameters.

    Args:
        model: Model with data.
        key: Random starts.
        config: Settings.
        filter_spec: Tree of booleans, what may move; `trainable_filter` by default.
        method: "lbfgs", or "adam" to go straight to Adam.

    Returns:
        The conditioned model and a report.

    Raises:
        PrecisionError: In 32-bit mode.
        ConfigError: If the method is unknown.
    """
    if method not in ("lbfgs", "adam"):
        raise ConfigError(f"method {method!r}; allowed are 'lbfgs' and 'adam'.")
    require_x64("Fitting a Gaussian process")
    config = FitConfig() if config is None else config
    bare = eqx.tree_at(lambda m: m.state, model, None, is_leaf=lambda node: node is None)
    spec = trainable_filter(bare) if filter_spec is None else filter_spec
    subset = eqx.tree_at(lambda m: m.data, bare, thin_rows(bare.data, config.max_rows))
    optimiser = method
    run, values = _search(subset, spec, key, config, method)
    if method == "lbfgs" and not np.isfinite(run.value):
        optimiser = "adam"
        run, values = _search(subset, spec, key, config, optimiser)
    best = eqx.combine(run.params, bare) if np.isfinite(run.value) else bare
    fitted, evidence, condition = _finish(best)
    is_fine = bool(np.isfinite(run.value) and np.isfinite(evidence))
    converged = bool(run.converged)
    result = Result.SUCCESS if converged else Result.NOT_CONVERGED
    report = FitReport(
        evidence=run.path,
        final=run.value,
        log_evidence=evidence,
        restarts=values,
        n_iterations=run.n_iterations,
        converged=converged and is_fine,
        result=result if is_fine else Result.NONFINITE,
        condition_number=condition,
        optimiser=optimiser,
        at_bounds=_at_bounds(fitted),
        details={},
    )
    return fitted, report


def _at_bounds(model: MultiTaskRateGP) -> tuple[str, ...]:
    lengths = np.asarray(model.kernel.lengthscale)
    names = [f"lengthscale[{i}]" for i in np.flatnonzero(lengths < _BOUNDS[0])]
    names += [f"lengthscale[{i}] (inactive)" for i in np.flatnonzero(lengths > _BOUNDS[1])]
    noise = np.asarray(model.likelihood.variance(model.n_tasks))
    names += [f"noise[{i}]" for i in np.flatnonzero((noise < 1e-5) | (noise > 10.0))]
    return tuple(names)
