"""The hybrid state-space model: mechanistic prior plus learned residual."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from perfusio_jax._core import HOURS_PER_DAY, ConfigError, Scalar
from perfusio_jax._core.programs import compiled
from perfusio_jax.embedding import PRIOR_CLONE
from perfusio_jax.gp import MechanisticPriorMean, MultiTaskRateGP, StepwiseGP
from perfusio_jax.hybrid.family import CloneFamily
from perfusio_jax.hybrid.layout import Layout
from perfusio_jax.hybrid.observation import AssayNoise, LatentMap, to_latent
from perfusio_jax.hybrid.prior import check_mechanism
from perfusio_jax.hybrid.transition import HybridStep, Limits, ResidualBasis
from perfusio_jax.hybrid.vessel import Vessel


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
        if latent is None:
            latent = (
                LatentMap(_offsets(mech_model.layout), mech_model.layout)
                if isinstance(mech_model, Vessel)
                else LatentMap(_DEFAULT_OFFSET)
            )
        layout = latent.layout
        if isinstance(mech_model, Vessel):
            use_mechanism = False
        for given, wanted, what in (
            (species_names, layout.face, "species_names"),
            (control_names, layout.controls, "control_names"),
        ):
            if given is not None and tuple(given) != tuple(wanted):
                raise ConfigError(f"{what} {tuple(given)}; the model's layout is {tuple(wanted)}.")
        gp = gp_model.model if isinstance(gp_model, StepwiseGP) else gp_model
        if gp is None and not use_mechanism and not isinstance(mech_model, Vessel):
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
        n = layout.n
        ones, zeros = jnp.ones(n), jnp.zeros(n)
        self.basis = ResidualBasis(ones, ones, zeros, zeros) if basis is None else basis
        self.limits = (
            Limits(jnp.asarray(1e6))
            if limits is None and basis is None
            else (Limits() if limits is None else limits)
        )
        if process_sd is None:
            process_sd = (
                zeros if gp is None else (jnp.sqrt(gp.likelihood.variance(n)) * gp.target_scale)
            )
        self.process_sd = jnp.asarray(process_sd, float)
        self.function_sd = zeros if function_sd is None else jnp.asarray(function_sd, float)
        self.assay = AssayNoise() if assay is None else assay
        self.latent = latent
        if initial is None:
            start = _DEFAULT_START if layout.is_cho else 10.0 * _offsets(layout)
            initial = InitialState(
                to_latent(self.latent, np.asarray(start, float)), jnp.full(n, 0.7)
            )
        self.initial = initial
        kinetics: Any = getattr(mech_model, "kinetics", None)
        if diameter is None and layout.is_cho:
            diameter = (kinetics.diam_base, kinetics.diam_death_coeff)
        elif diameter is None:
            diameter = (0.0, 0.0)  # of a culture that is described nobody says how wide cells are
        base, coefficient = diameter
        self.diam_base = jnp.asarray(base, float)
        self.diam_death_coeff = jnp.asarray(coefficient, float)
        rows = 0 if gp is None else jnp.sum(gp.data.row_present)
        self.base_rows, self.row_reference = jnp.asarray(rows, int), ones
        self.species_names, self.control_names = layout.face, layout.controls
        self.use_mechanism = bool(use_mechanism)

    @property
    def layout(self) -> Layout:
        """How its arrays are laid out."""
        return self.latent.layout

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
        return StepwiseGP(
            self.gp, self.gp.likelihood, self.layout.n, list(self.control_names), step=step
        )

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
        from perfusio_jax.hybrid.rollouts import predict  # here: roll-outs know the model

        model = self if clone_id is None else for_clone(self, clone_id)
        face, plan = jnp.asarray(c0, float), jnp.asarray(controls, float)
        layout = self.layout
        if face.shape != (layout.n,) or not bool(jnp.all(jnp.isfinite(face))):
            raise ConfigError(
                f"the start must be {layout.n} finite numbers in the order {layout.face}; "
                "estimate missing ones with the filter first."
            )
        if plan.ndim == 1:
            plan = jnp.broadcast_to(plan[None, :], (n_days, plan.shape[0]))
        if plan.shape != (n_days, layout.m):
            raise ConfigError(
                f"controls of shape {plan.shape}; allowed are ({layout.m},) and "
                f"({n_days}, {layout.m}): {', '.join(layout.controls)}."
            )
        states = predict(model, face, plan, jnp.asarray(start_day, float), seed, n_samples)
        q10, q50, q90 = jnp.quantile(states, jnp.asarray([0.1, 0.5, 0.9]), axis=0)
        return {"mean": jnp.mean(states, axis=0), "q10": q10, "q50": q50, "q90": q90}


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
    shared = jnp.stack([model.diam_base, model.diam_death_coeff])
    mech, noise, size, openness = _of_clone(
        model.embedding, index, shared, model.openness is not None
    )
    there = eqx.tree_at(
        lambda m: (m.mech_model, m.clone, m.process_sd, m.diam_base, m.diam_death_coeff),
        model,
        (mech, index, noise, size[0], size[1]),
    )
    if openness is None:
        return there
    return eqx.tree_at(lambda m: m.openness, there, openness)


@compiled
def _of_clone(family: CloneFamily, index: Array, shared: Array, is_open: bool) -> tuple[Any, ...]:
    """What of a model is a clone's own: one program, where nothing is traced."""
    return (
        family.mechanism(index),
        family.noise(index),
        family.diameter(index, shared),
        family.openness(index) if is_open else None,
    )


def _offsets(layout: Layout) -> Array:
    """Offsets of the logarithm before any data: a hundredth of what is plausible."""
    return jnp.asarray(0.01 * layout.upper)


_DEFAULT_START = (0.8, 0.03, 5.0, 5.0, 0.7, 1.0, 0.8, 0.5, 10.0)
_DEFAULT_OFFSET = (0.05, 0.02, 0.1, 0.05, 0.05, 0.1, 0.05, 0.05, 5.0)
