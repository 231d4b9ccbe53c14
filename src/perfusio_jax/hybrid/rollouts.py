"""Roll-outs of the hybrid model along given draws."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import HOURS_PER_DAY, ConfigError, Scalar
from perfusio_jax._core.programs import compiled
from perfusio_jax.hybrid.drawn import refuse_undrawable
from perfusio_jax.hybrid.model import HybridStateSpaceModel
from perfusio_jax.hybrid.observation import reported, to_face, to_states
from perfusio_jax.hybrid.paths import Paths, draw_paths
from perfusio_jax.hybrid.step import step_batch
from perfusio_jax.hybrid.transition import StepInfo


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
        ConfigError: If shapes do not fit, or paths have mechanisms and the model none.
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
        c0 = jnp.broadcast_to(c0[None, :], (size, c0.shape[0]))
    n = model.layout.n
    if c0.shape != (size, n):
        raise ConfigError(f"start of shape {c0.shape}; allowed are ({n},) and ({size}, {n}).")
    gp, functions, sd = model.gp, paths.functions, model.process_sd[None, :]
    shifts = None
    if paths.constants is not None and model.openness is not None:
        shifts = paths.constants @ model.openness.T
    own = None
    if paths.mechanisms is not None:
        refuse_undrawable(model)
        own = paths.mechanisms.kinetics

    # where pumps answer to the state, the volume is each path's own from the start on
    tracks = getattr(model.mech_model, "tracks_volume", False)

    def body(carry: tuple[Array, ...], xs: Any) -> Any:
        state, *volume = carry
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
        if tracks:
            many = many.at[:, -1].set(volume[0])
        after, gained, info = step_batch(model, state, many, day, residual, hours, shifts, own)
        return (after, *(v + gained for v in volume)), (after, info)

    hours = jnp.asarray(HOURS_PER_DAY if dt_h is None else dt_h, c0.dtype)
    hours = jnp.broadcast_to(hours, (horizon,))
    days = jnp.asarray(day0, c0.dtype) + (jnp.cumsum(hours) - hours) / HOURS_PER_DAY
    noise = paths.process[:, :horizon].transpose(1, 0, 2)
    begin = (jnp.maximum(c0, 0.0),)
    if tracks:
        begin = (*begin, jnp.broadcast_to(controls[0, -1], (size,)))
    _, (states, info) = jax.lax.scan(body, begin, (controls, noise, days, hours))
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
    return reported(model, states, paths.assay[:, : states.shape[1]] if measurement_noise else None)


def rollout_with_info(
    model: HybridStateSpaceModel,
    paths: Paths,
    c0: Float[Array, "..."],
    controls: Float[Array, "..."],
    day0: Scalar,
) -> tuple[Float[Array, "S H 12"], RolloutInfo]:
    """`rollout` in steps of a day, and how often the physical limits acted.

    Args:
        model: Hybrid model.
        paths: Draws of `draw_paths`.
        c0: Balanced start, (9,) or one per path (S, 9).
        controls: (H, 6), or (6,) for one step.
        day0: Culture day of the start [d].

    Returns:
        `FORECAST_SPECIES` after each step, with unexplained variation and without assay noise;
        and the shares of path-steps in which a limit acted [-].

    Raises:
        ConfigError: If shapes do not fit, or there are more steps than the paths were drawn for.
    """
    states, info = rollout_states(model, paths, c0, controls, day0)
    values = reported(model, states)
    summary = RolloutInfo(
        residual_limited=jnp.mean(info.residual.astype(float), axis=(0, 1)),
        cells_limited=jnp.mean(info.cells.astype(float)),
        floored=jnp.mean(info.floor.astype(float), axis=(0, 1)),
        is_finite=jnp.all(jnp.isfinite(states)),
    )
    return values, summary


@compiled
def predict(
    model: HybridStateSpaceModel,
    face: Array,
    controls: Array,
    day: Array,
    seed: int,
    n_samples: int,
) -> Array:
    """Measured faces (S, H, 9) along fresh paths, without assay noise; `predict_trajectory`'s."""
    paths = draw_paths(model, n_samples, key=jax.random.key(seed), max_steps=controls.shape[0])
    states, _ = rollout_states(model, paths, to_states(model.layout, face), controls, day)
    return to_face(model.layout, states)
