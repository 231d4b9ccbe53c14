"""Forecasts of a run, ready for decisions and pictures."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from perfusio_jax._core import HOURS_PER_DAY, ConfigError
from perfusio_jax._core.programs import compiled
from perfusio_jax.hybrid.belief import Belief
from perfusio_jax.hybrid.model import HybridStateSpaceModel, for_clone
from perfusio_jax.hybrid.observation import to_states
from perfusio_jax.hybrid.paths import draw_paths
from perfusio_jax.hybrid.rollouts import rollout


@compiled
def forecast_samples(
    hybrid: HybridStateSpaceModel,
    start: Float[Array, "..."],
    controls: Float[Array, "H 6"],
    day0: Float[Array, ""],
    seed: int,
    n_samples: int,
    noise: tuple[bool, bool],
) -> Float[Array, "S H 12"]:
    """Forecast paths of `FORECAST_SPECIES`.

    Args:
        hybrid: Fitted model.
        start: Balanced state (9,) or equally likely ones (N, 9).
        controls: Set-points per step.
        day0: Culture day of the start [d].
        seed: Random seed.
        n_samples: Paths.
        noise: Whether process and assay noise are added.

    Returns:
        Paths.
    """
    for_paths, for_start = jax.random.split(jax.random.key(seed))
    paths = draw_paths(hybrid, n_samples, key=for_paths, max_steps=controls.shape[0])
    if start.ndim == 2:
        start = Belief(start, day0).sample(n_samples, key=for_start)
    return rollout(
        hybrid,
        paths,
        start,
        controls,
        day0,
        process_noise=noise[0],
        measurement_noise=noise[1],
        dt_h=hybrid.dt_hours,
    )


def forecast_run(
    hybrid: HybridStateSpaceModel,
    c0: Float[ArrayLike, " 9"] | Belief,
    controls: Float[ArrayLike, "..."],
    horizon: int = 3,
    n_samples: int = 200,
    seed: int = 0,
    clone_id: int | str | None = None,
    *,
    day0: float | None = None,
    names: tuple[str, ...] | None = None,
    process_noise: bool = True,
    measurement_noise: bool = False,
) -> dict[str, Float[Array, "..."]]:
    """Forecast a run some steps ahead.

    Args:
        hybrid: Fitted hybrid model.
        c0: Measured face in `STATE_ORDER` without gaps, or the filter's `Belief`.
        controls: (horizon, 6), or (6,) held throughout, in `CONTROL_NAMES` order.
        horizon: Steps, each of the model's `dt_hours`.
        n_samples: Paths.
        seed: Random seed; the same seed gives the same numbers.
        clone_id: Clone by index or name, if the model holds several; the one it is set to.
        day0: Culture day of c0 [d]; the belief's, or 0.
        names: Species of the columns, out of `FORECAST_SPECIES`; `STATE_ORDER` by default.
        process_noise: Whether unexplained variation is added.
        measurement_noise: Whether assay noise is added, for intervals of readings.

    Returns:
        "hours" and "days" (horizon,) after c0, the latter a 24th of the former, and "mean", "q10",
        "q50", "q90", each (horizon, len(names)).

    Raises:
        ConfigError: If shapes, names or the clone do not fit.
    """
    if clone_id is not None:
        hybrid = for_clone(hybrid, clone_id)
    wanted = tuple(hybrid.species_names) if names is None else tuple(names)
    layout = hybrid.layout
    unknown = [name for name in wanted if name not in layout.forecast]
    if unknown:
        raise ConfigError(f"unknown species {unknown}; allowed are {layout.forecast}.")
    plan = jnp.asarray(controls, float)
    if plan.ndim == 1:
        plan = jnp.broadcast_to(plan[None, :], (horizon, plan.shape[0]))
    if plan.shape != (horizon, layout.m):
        raise ConfigError(
            f"controls of shape {plan.shape}; allowed are ({layout.m},) and "
            f"({horizon}, {layout.m}): {', '.join(layout.controls)}."
        )
    if isinstance(c0, Belief):
        start, day = c0.particles, c0.day if day0 is None else day0
    else:
        face = jnp.asarray(c0, float)
        if face.shape != (layout.n,) or not bool(jnp.all(jnp.isfinite(face))):
            raise ConfigError(
                f"c0 must be {layout.n} finite numbers in the order {layout.face}; hand "
                "in the filter's belief when something was not measured."
            )
        start, day = to_states(layout, face), 0.0 if day0 is None else day0
    samples = forecast_samples(
        hybrid,
        start,
        plan,
        jnp.asarray(day, float),
        seed,
        n_samples,
        (process_noise, measurement_noise),
    )
    samples = samples[:, :, jnp.asarray([layout.forecast.index(name) for name in wanted])]
    q10, q50, q90 = jnp.quantile(samples, jnp.asarray([0.1, 0.5, 0.9]), axis=0)
    hours = hybrid.dt_hours * jnp.arange(1, horizon + 1)
    return {
        "hours": hours,
        "days": hours / HOURS_PER_DAY,
        "mean": jnp.mean(samples, axis=0),
        "q10": q10,
        "q50": q50,
        "q90": q90,
    }
