"""The hybrid state-space model: mechanistic prior plus learned residual, and its roll-out."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from perfusio_jax._core import (
    CONTROL_NAMES,
    FORECAST_SPECIES,
    HOURS_PER_DAY,
    STATE_ORDER,
    ConfigError,
    Key,
    Scalar,
)
from perfusio_jax.chemistry import from_balanced, to_balanced
from perfusio_jax.embedding import PRIOR_CLONE
from perfusio_jax.gp import (
    N_FREQUENCIES,
    GPPaths,
    MechanisticPriorMean,
    MultiTaskRateGP,
    StepwiseGP,
    draw_gp_paths,
)
from perfusio_jax.hybrid.calibrate import shifted
from perfusio_jax.hybrid.family import CloneFamily
from perfusio_jax.hybrid.observation import AssayNoise, LatentMap, forecast_report
from perfusio_jax.hybrid.prior import check_mechanism
from perfusio_jax.hybrid.transition import (
    Limits,
    ResidualBasis,
    StepInfo,
    apply_residual,
    flat_prior,
    prior_step,
)

_N = len(STATE_ORDER)


def _leaf(value: Any) -> Array:
    return jnp.asarray(value, float)


def strongly_typed(tree: Any) -> Any:
    """The same tree with arrays that carry a type of their own.

    What began as a plain number is an array of a weak type; one that was saved and read back is
    not, and would compile everything again.

    Args:
        tree: Any pytree.

    Returns:
        The tree; what is no array passes unchanged.
    """
    return jax.tree.map(lambda v: jnp.asarray(v, v.dtype) if eqx.is_array(v) else v, tree)


class InitialState(eqx.Module):
    """What is believed of a run before its first sample, in the filter's latent space."""

    mean: Float[Array, " 9"] = eqx.field(converter=_leaf)
    """Mean of `log(c + offset)`."""
    sd: Float[Array, " 9"] = eqx.field(converter=_leaf)
    """Its standard deviation [-]."""


class HybridStateSpaceModel(eqx.Module):
    """Mechanistic model plus Gaussian process on what it misses.

    Built directly (seed form) the process speaks in plain volumetric rates; `fit_hybrid`
    sets the per-cell basis, noise levels and scales from a campaign.
    """

    mech_model: Any
    """Mechanistic model with `advance`."""
    gp: MultiTaskRateGP | None
    """Residual rates in units of `basis`; None leaves the mechanism alone."""
    embedding: CloneFamily | None
    """Clones the model knows; None for one clone."""
    clone: Float[Array, ""]
    """Index of the clone that is forecast; unused without an embedding."""
    openness: Float[Array, "P P"] | None
    """Cholesky factor of what is not known of that clone's constants [-]; None without an
    embedding whose mechanism was calibrated."""
    dt_hours: Scalar
    """Interval between the samples the model learned from [h]; the noise of a step refers to
    it, and `forecast_run` goes by it. A roll-out goes by days unless it is told hours."""
    basis: ResidualBasis
    """Unit of the residual."""
    limits: Limits
    """Physical limits."""
    process_sd: Float[Array, " 9"]
    """Spread of what neither part explains, over `dt_hours` [residual units]; white in the
    rates, so over other hours it changes with the inverse root of the time."""
    function_sd: Float[Array, " 9"]
    """Typical posterior spread of the residual function [residual units]; the filter's."""
    assay: AssayNoise
    """Measurement noise."""
    latent: LatentMap
    """Space of the filter."""
    initial: InitialState
    """Belief before the first sample."""
    diam_base: Scalar
    """Cell diameter at full viability [um]."""
    diam_death_coeff: Scalar
    """Increase of the diameter per unit dead fraction [um]."""
    base_rows: Int[Array, ""]
    """Rows of the GP that came from the campaign; later days are put behind them."""
    row_reference: Float[Array, " 9"]
    """Typical variance of a training target [residual units squared]."""
    species_names: tuple[str, ...] = eqx.field(static=True)
    """Names of the state's measured face."""
    control_names: tuple[str, ...] = eqx.field(static=True)
    """Names of the controls."""
    use_mechanism: bool = eqx.field(static=True)
    """False for the purely data-driven ablation."""

    def __init__(
        self,
        mech_model: Any,
        gp_model: StepwiseGP | MultiTaskRateGP | None,
        embedding: CloneFamily | None = None,
        dt_hours: float = HOURS_PER_DAY,
        species_names: list[str] | tuple[str, ...] | None = None,
        control_names: list[str] | tuple[str, ...] | None = None,
        *,
        basis: ResidualBasis | None = None,
        limits: Limits | None = None,
        process_sd: Float[ArrayLike, " 9"] | None = None,
        function_sd: Float[ArrayLike, " 9"] | None = None,
        assay: AssayNoise | None = None,
        latent: LatentMap | None = None,
        initial: InitialState | None = None,
        diameter: tuple[ArrayLike, ArrayLike] | None = None,
        use_mechanism: bool = True,
    ):
        """Build the model.

        Args:
            mech_model: Mechanistic model.
            gp_model: Fitted step-wise GP or rate GP on the residual, or None.
            embedding: Clones the model knows, or None; `for_clone` chooses among them.
            dt_hours: Interval between samples [h], to which `process_sd` refers.
            species_names: `STATE_ORDER`, the only layout of the balance.
            control_names: `CONTROL_NAMES`, likewise.
            basis: Unit of the residual; plain volumetric rates by default.
            limits: Physical limits.
            process_sd: Process noise per step [residual units]; the GP's noise by default.
            function_sd: Typical spread of the residual function [residual units].
            assay: Measurement noise.
            latent: Space of the filter.
            initial: Belief before the first sample.
            diameter: Base [um] and coefficient [um]; the mechanistic model's by default.
            use_mechanism: False drops the mechanistic rates.

        Raises:
            ConfigError: If names differ from the layout, there is nothing to predict with, the
                mechanism is of a process the balance does not know, or the process's mean is the
                mechanism, which the model adds itself.
        """
        check_mechanism(mech_model)
        for given, wanted, what in (
            (species_names, STATE_ORDER, "species_names"),
            (control_names, CONTROL_NAMES, "control_names"),
        ):
            if given is not None and tuple(given) != tuple(wanted):
                raise ConfigError(f"{what} {tuple(given)}; the model's layout is {tuple(wanted)}.")
        gp = gp_model.model if isinstance(gp_model, StepwiseGP) else gp_model
        if gp is None and not use_mechanism:
            raise ConfigError("a model needs the mechanism, a GP, or both; neither was given.")
        if gp is not None and use_mechanism and isinstance(gp.mean_module, MechanisticPriorMean):
            raise ConfigError(
                "the process has a MechanisticPriorMean, and the model adds the mechanism's rates "
                "itself: they would count twice. Train the process on residual rates with a zero "
                "mean, or take use_mechanism=False."
            )
        self.mech_model, self.gp = strongly_typed(mech_model), gp
        self.embedding = strongly_typed(embedding)
        self.clone = jnp.asarray(PRIOR_CLONE, float)
        self.openness = None
        if embedding is not None and embedding.is_calibrated and use_mechanism:
            self.openness = embedding.openness(self.clone)
        self.dt_hours = jnp.asarray(dt_hours, float)
        ones, zeros = jnp.ones(_N), jnp.zeros(_N)
        self.basis = ResidualBasis(ones, ones, zeros) if basis is None else basis
        self.limits = (
            Limits(jnp.asarray(1e6))
            if limits is None and basis is None
            else (Limits() if limits is None else limits)
        )
        if process_sd is None:
            process_sd = (
                zeros if gp is None else (jnp.sqrt(gp.likelihood.variance(_N)) * gp.target_scale)
            )
        self.process_sd = jnp.asarray(process_sd, float)
        self.function_sd = zeros if function_sd is None else jnp.asarray(function_sd, float)
        self.assay = AssayNoise() if assay is None else assay
        self.latent = LatentMap(_DEFAULT_OFFSET) if latent is None else latent
        if initial is None:
            centre = self.latent.forward(jnp.asarray(_DEFAULT_START))
            initial = InitialState(centre, jnp.full(_N, 0.7))
        self.initial = initial
        base, coefficient = (
            diameter
            if diameter is not None
            else (
                mech_model.kinetics.diam_base,
                mech_model.kinetics.diam_death_coeff,
            )
        )
        self.diam_base = jnp.asarray(base, float)
        self.diam_death_coeff = jnp.asarray(coefficient, float)
        rows = 0 if gp is None else jnp.sum(gp.data.row_present)
        self.base_rows, self.row_reference = jnp.asarray(rows, int), ones
        self.species_names, self.control_names = tuple(STATE_ORDER), tuple(CONTROL_NAMES)
        self.use_mechanism = bool(use_mechanism)

    @property
    def gp_model(self) -> StepwiseGP | None:
        """The step-wise GP, as the seed names it; None without a process.

        What the process gives are residuals in units of `basis`, and its step is the hybrid's:
        mechanism, residual, pump and limits. `predict_quantiles` therefore forecasts this model,
        from balanced states to balanced states.

        Raises:
            ConfigError: If the model holds clones, whose mechanisms differ from path to path.
        """
        if self.gp is None:
            return None
        if self.embedding is not None:
            raise ConfigError(
                "the process of a model of several clones cannot be rolled out by itself, because "
                "every path has its own mechanism. Forecast with forecast_run or "
                "predict_trajectory(clone_id=...); the process alone is `model.gp`."
            )
        step = HybridStep(
            self.mech_model, self.basis, self.limits, self.dt_hours, self.use_mechanism
        )
        return StepwiseGP(self.gp, self.gp.likelihood, _N, list(self.control_names), step=step)

    def predict_next_state(
        self,
        c_t: Float[ArrayLike, " 9"],
        u_t: Float[ArrayLike, " 6"],
        day: int,
        clone_id: int | None = None,
        *,
        n_samples: int = 256,
        seed: int = 0,
    ) -> tuple[Float[Array, " 9"], Float[Array, " 9"], Float[Array, " 9"]]:
        """State after one interval.

        Args:
            c_t: Measured face in `STATE_ORDER`, all present.
            u_t: Set-points in `CONTROL_NAMES` order.
            day: Culture day [d].
            clone_id: Clone index; only with an embedding.
            n_samples: Paths.
            seed: Random seed.

        Returns:
            Mean, 10 % and 90 % quantile of the latent next state, measured face.
        """
        result = self.predict_trajectory(
            c_t, jnp.asarray(u_t, float)[None, :], 1, clone_id, n_samples, seed, start_day=day
        )
        return result["mean"][0], result["q10"][0], result["q90"][0]

    def predict_trajectory(
        self,
        c0: Float[ArrayLike, " 9"],
        controls: Float[ArrayLike, "..."],
        n_days: int,
        clone_id: int | None = None,
        n_samples: int = 200,
        seed: int = 0,
        *,
        start_day: float = 0.0,
    ) -> dict[str, Float[Array, "H 9"]]:
        """Roll the model out from a known state.

        Args:
            c0: Measured face in `STATE_ORDER`, all present.
            controls: (n_days, 6), or (6,) held throughout.
            n_days: Days, a step of 24 h each.
            clone_id: Clone index; only with an embedding.
            n_samples: Paths.
            seed: Random seed.
            start_day: Culture day of c0 [d].

        Returns:
            "mean", "q10", "q50", "q90", each (n_days, 9), measured face without assay noise.

        Raises:
            ConfigError: If the state has gaps or shapes do not fit.
        """
        model = self if clone_id is None else for_clone(self, clone_id)
        face, plan = jnp.asarray(c0, float), jnp.asarray(controls, float)
        if face.shape != (_N,) or not bool(jnp.all(jnp.isfinite(face))):
            raise ConfigError(
                f"the start must be {_N} finite numbers in the order {STATE_ORDER}; estimate "
                "missing ones with the filter first."
            )
        if plan.ndim == 1:
            plan = jnp.broadcast_to(plan[None, :], (n_days, plan.shape[0]))
        if plan.shape != (n_days, len(CONTROL_NAMES)):
            raise ConfigError(
                f"controls of shape {plan.shape}; allowed are (6,) and ({n_days}, 6)."
            )
        states = _predict(model, face, plan, jnp.asarray(start_day, float), seed, n_samples)
        q10, q50, q90 = jnp.quantile(states, jnp.asarray([0.1, 0.5, 0.9]), axis=0)
        return {"mean": jnp.mean(states, axis=0), "q10": q10, "q50": q50, "q90": q90}


class HybridStep(eqx.Module):
    """Next state from a residual: the step of a `StepwiseGP` that forecasts a hybrid model."""

    mech_model: Any
    """Mechanistic model with `advance`."""
    basis: ResidualBasis
    """Unit of the residual."""
    limits: Limits
    """Physical limits."""
    dt_hours: Scalar
    """Length of the step [h]."""
    use_mechanism: bool = eqx.field(static=True)
    """False for the purely data-driven ablation."""

    def __call__(
        self, state: Float[Array, " 9"], rate: Float[Array, " 9"], controls: Float[Array, " 6"]
    ) -> Float[Array, " 9"]:
        """State after `dt_hours`.

        Args:
            state: Balanced state.
            rate: Residual [residual units].
            controls: Set-points in `CONTROL_NAMES` order.

        Returns:
            Balanced state.
        """
        legal = jnp.maximum(state, 0.0)
        prior = (
            prior_step(self.mech_model, legal, controls, self.dt_hours)
            if self.use_mechanism
            else flat_prior(legal)
        )
        after, _, _ = apply_residual(
            self.mech_model,
            self.basis,
            self.limits,
            legal,
            controls,
            prior,
            rate,
            self.dt_hours,
        )
        return after


def for_clone(
    model: HybridStateSpaceModel, clone: str | int, *, unknown: str = "error"
) -> HybridStateSpaceModel:
    """The model, set to forecast one of its clones.

    Args:
        model: Model of several clones.
        clone: Name or index.
        unknown: `"error"` refuses a name the model does not know; `"prior"` forecasts a clone
            without data: the family's mean constants and the mean vector.

    Returns:
        The same model with that clone's mechanism and vector.

    Raises:
        ConfigError: If the model holds no clones, or not this one.
    """
    if model.embedding is None:
        raise ConfigError(
            f"clone {clone!r} was asked for, but this model was fitted to one clone and holds no "
            "embedding."
        )
    index = model.embedding.index(clone, unknown=unknown)
    return at_clone(model, jnp.asarray(index, float))


def at_clone(model: HybridStateSpaceModel, index: Array) -> HybridStateSpaceModel:
    """`for_clone` for an index that may be traced; nothing without an embedding."""
    if model.embedding is None:
        return model
    family = model.embedding
    there = eqx.tree_at(
        lambda m: (m.mech_model, m.clone, m.process_sd),
        model,
        (family.mechanism(index), index, family.noise(index)),
    )
    if model.openness is None:
        return there
    return eqx.tree_at(lambda m: m.openness, there, family.openness(index))


_DEFAULT_START = (0.8, 0.03, 5.0, 5.0, 0.7, 1.0, 0.8, 0.5, 10.0)
_DEFAULT_OFFSET = (0.05, 0.02, 0.1, 0.05, 0.05, 0.1, 0.05, 0.05, 5.0)


class Paths(eqx.Module):
    """Everything random in a set of roll-outs, drawn once."""

    functions: GPPaths | None
    """Residual functions, one per path; None without a GP."""
    process: Float[Array, "S K 9"]
    """Standard normal process noise per path and step [-]."""
    assay: Float[Array, "S K 12"]
    """Standard normal assay noise per path and step [-]."""
    constants: Float[Array, "S P"] | None = None
    """Standard normal numbers for the constants of each path's mechanism; None for one
    mechanism in all paths."""

    @property
    def n_paths(self) -> int:
        """Number of paths."""
        return self.process.shape[0]

    @property
    def n_steps(self) -> int:
        """Longest roll-out these draws serve [steps]."""
        return self.process.shape[1]


class RolloutInfo(NamedTuple):
    """How often the physical limits acted, as fractions of all path-steps."""

    residual_limited: Array
    """Per species: residual reduced by more than 5 %."""
    cells_limited: Array
    """Cell limit took more than 5 %."""
    floored: Array
    """Per species: concentration bent off at zero."""
    is_finite: Array
    """Whether every number is finite."""


def draw_paths(
    model: HybridStateSpaceModel,
    n: int,
    *,
    key: Key,
    max_steps: int = 32,
    n_frequencies: int = N_FREQUENCIES,
) -> Paths:
    """Draw residual functions and noise for roll-outs.

    Args:
        model: Hybrid model.
        n: Number of paths.
        key: Random key.
        max_steps: Longest roll-out.
        n_frequencies: Fourier frequencies per block of paths.

    Returns:
        The draws; the same draws serve any state, any controls (common random numbers).
    """
    for_functions, for_noise = jax.random.split(key)
    constants = None
    if model.openness is not None:
        constants = jax.random.normal(jax.random.fold_in(key, 2), (n, model.openness.shape[0]))
    functions = None
    if model.gp is not None:
        functions = draw_gp_paths(model.gp, n, key=for_functions, n_frequencies=n_frequencies)
    noise = jax.random.normal(for_noise, (n, max_steps, _N + len(FORECAST_SPECIES)))
    return Paths(functions, noise[:, :, :_N], noise[:, :, _N:], constants)


def parts_of(model: Any, hours: float = HOURS_PER_DAY) -> int:
    """Steps in which a roll-out of this model takes some hours: as long as those it learned from.

    What the process adds is a mean over the interval between two samples, from the state at its
    start. Over a longer step it would be the mean of another time; so a model of samples 12 h
    apart takes a day in two steps. One of samples more than a day apart takes it in one.

    Args:
        model: Hybrid model, outside of jit; another one takes whatever it is given as one step.
        hours: What the steps are to fill [h].

    Returns:
        The number, at least 1.
    """
    return max(1, round(hours / float(getattr(model, "dt_hours", hours))))


def step_batch(
    model: HybridStateSpaceModel,
    states: Float[Array, "S 9"],
    controls: Float[Array, "S 6"],
    day: Scalar,
    residual: Any,
    dt_h: Scalar,
    shifts: Float[Array, "S P"] | None = None,
) -> tuple[Float[Array, "S 9"], Float[Array, " S"], StepInfo]:
    """One interval for a batch of states.

    Args:
        model: Hybrid model.
        states: Balanced states, not negative.
        controls: Set-points per state.
        day: Culture day at the start [d].
        residual: Function of the GP inputs (S, 16) giving residuals (S, 9), or an array.
        dt_h: Length [h].
        shifts: What each state's mechanism has other constants by, or None.

    Returns:
        Next states, concentrate fed [L], limits.
    """
    mech = model.mech_model
    if not model.use_mechanism:
        prior = jax.vmap(flat_prior)(states)
    elif shifts is None:
        prior = jax.vmap(lambda c, u: prior_step(mech, c, u, dt_h))(states, controls)
    else:
        prior = jax.vmap(lambda c, u, d: prior_step(shifted(mech, d), c, u, dt_h))(
            states, controls, shifts
        )
    value: Any = (
        residual(gp_inputs(model, states, controls, day)) if callable(residual) else residual
    )

    def finish(c: Array, u: Array, p: Any, r: Array) -> Any:
        return apply_residual(mech, model.basis, model.limits, c, u, p, r, dt_h)

    return jax.vmap(finish)(states, controls, prior, value)


def gp_inputs(
    model: HybridStateSpaceModel,
    states: Float[Array, "S 9"],
    controls: Float[Array, "S 6"],
    day: Scalar,
) -> Float[Array, "S D"]:
    """Rows of the GP: `[c, u, day]`, or `[c, u, clone, day]` if the model holds clones."""
    ends = [day] if model.embedding is None else [model.clone, day]
    columns = [jnp.broadcast_to(jnp.asarray(v, states.dtype), states.shape[:1]) for v in ends]
    return jnp.concatenate([states, controls, jnp.stack(columns, axis=1)], axis=1)


def rollout_states(
    model: HybridStateSpaceModel,
    paths: Paths,
    c0: Float[Array, "..."],
    controls: Float[Array, "..."],
    day0: Scalar,
    *,
    process_noise: bool = True,
    n_steps: int | None = None,
    dt_h: Float[ArrayLike, "..."] | None = None,
) -> tuple[Float[Array, "S H 9"], StepInfo]:
    """Balanced states along every path.

    Args:
        model: Hybrid model.
        paths: Draws.
        c0: Balanced start, (9,) or one per path (S, 9).
        controls: (H, 6); (6,) with `n_steps` holds them.
        day0: Culture day of the start [d].
        process_noise: Whether unexplained variation is added.
        n_steps: Steps when `controls` is (6,); one by default.
        dt_h: Length of each step (H,), or of all [h]; a day by default. Traced: other hours
            do not recompile.

    Returns:
        States after each step, and what the limits did per step.

    Raises:
        ConfigError: If shapes do not fit.
    """
    if controls.ndim == 1:
        controls = jnp.broadcast_to(controls[None, :], (n_steps or 1, controls.shape[0]))
    horizon, size = controls.shape[0], paths.n_paths
    if horizon > paths.n_steps:
        raise ConfigError(
            f"{horizon} steps asked for, the paths were drawn for {paths.n_steps}; draw them "
            "with a larger max_steps."
        )
    if c0.ndim == 1:
        c0 = jnp.broadcast_to(c0[None, :], (size, _N))
    if c0.shape != (size, _N):
        raise ConfigError(f"start of shape {c0.shape}; allowed are (9,) and ({size}, 9).")
    gp, functions, sd = model.gp, paths.functions, model.process_sd[None, :]
    shifts = None
    if paths.constants is not None and model.openness is not None:
        shifts = paths.constants @ model.openness.T

    def body(state: Array, xs: Any) -> Any:
        control, noise, day, hours = xs
        # white in the rates: the mean over a longer step varies less
        share = jnp.sqrt(model.dt_hours / hours)

        def residual(inputs: Array) -> Array:
            known = 0.0
            if functions is not None and gp is not None:
                # drawn around the mean function, which is zero in what fit_hybrid makes
                known = functions(inputs) + gp.mean_at(inputs)
            return known + sd * share * noise if process_noise else known + 0.0 * noise

        many = jnp.broadcast_to(control[None, :], (size, control.shape[0]))
        after, _, info = step_batch(model, state, many, day, residual, hours, shifts)
        return after, (after, info)

    hours = jnp.asarray(HOURS_PER_DAY if dt_h is None else dt_h, c0.dtype)
    hours = jnp.broadcast_to(hours, (horizon,))
    days = jnp.asarray(day0, c0.dtype) + (jnp.cumsum(hours) - hours) / HOURS_PER_DAY
    noise = paths.process[:, :horizon].transpose(1, 0, 2)
    _, (states, info) = jax.lax.scan(body, jnp.maximum(c0, 0.0), (controls, noise, days, hours))
    return states.transpose(1, 0, 2), info


def rollout(
    model: HybridStateSpaceModel,
    paths: Paths,
    c0: Float[Array, "..."],
    controls: Float[Array, "..."],
    day0: Scalar,
    *,
    process_noise: bool = True,
    measurement_noise: bool = False,
    dt_h: Float[ArrayLike, "..."] | None = None,
) -> Float[Array, "S H 12"]:
    """Forecast along every path; pure, differentiable in controls and start.

    Args:
        model: Hybrid model.
        paths: Draws of `draw_paths`.
        c0: Balanced start, (9,) or one per path (S, 9).
        controls: (H, 6), or (6,) for one step.
        day0: Culture day of the start [d].
        process_noise: Whether unexplained variation is added.
        measurement_noise: Whether assay noise is added, for forecasts of readings.
        dt_h: Length of each step (H,), or of all [h]; a day by default.

    Returns:
        `FORECAST_SPECIES` after each step.
    """
    states, _ = rollout_states(
        model, paths, c0, controls, day0, process_noise=process_noise, dt_h=dt_h
    )
    noise = model.assay if measurement_noise else None
    draws = paths.assay[:, : states.shape[1]] if measurement_noise else None
    return forecast_report(states, model.diam_base, model.diam_death_coeff, noise, draws)


def rollout_with_info(
    model: HybridStateSpaceModel,
    paths: Paths,
    c0: Float[Array, "..."],
    controls: Float[Array, "..."],
    day0: Scalar,
) -> tuple[Float[Array, "S H 12"], RolloutInfo]:
    """`rollout`, and how often the physical limits acted."""
    states, info = rollout_states(model, paths, c0, controls, day0)
    values = forecast_report(states, model.diam_base, model.diam_death_coeff)
    summary = RolloutInfo(
        residual_limited=jnp.mean(info.residual.astype(float), axis=(0, 1)),
        cells_limited=jnp.mean(info.cells.astype(float)),
        floored=jnp.mean(info.floor.astype(float), axis=(0, 1)),
        is_finite=jnp.all(jnp.isfinite(states)),
    )
    return values, summary


@eqx.filter_jit
def _predict(
    model: HybridStateSpaceModel,
    face: Array,
    controls: Array,
    day: Array,
    seed: int,
    n_samples: int,
) -> Array:
    paths = draw_paths(model, n_samples, key=jax.random.key(seed), max_steps=controls.shape[0])
    states, _ = rollout_states(model, paths, to_balanced(face), controls, day)
    return from_balanced(states)
