"""CHO runs side by side: their starts, a day of all of them, and what is read of it."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax._core import HOURS_PER_DAY, REGISTRY
from perfusio_jax._core.programs import compiled
from perfusio_jax.chemistry import cell_volume_fraction
from perfusio_jax.mechanistic import Method, Reactor, Tolerances, integrate, make_plan

from .noise import apply_noise
from .plant import observe

_VIA, _VCD, _DIAM, _VCV = (REGISTRY.index(n) for n in ("Via", "VCD", "Diam", "VCV"))


@compiled
def started_runs(
    base: Float[Array, " 10"], cv: Float[Array, ""], seed: Array, runs: Array, n_days: int
) -> tuple[Float[Array, "L 10"], Array]:
    """Inocula, and a key for each run and day: they depend on the run's number alone.

    Args:
        base: State of the plant at the start.
        cv: Scatter of the inoculum [-].
        seed: Seed of the campaign.
        runs: Numbers of the runs.
        n_days: Days of a run.

    Returns:
        Starts, and keys of shape `(L, n_days + 1)`.
    """

    def one(run: Array) -> tuple[Array, Array]:
        key = jax.random.fold_in(jax.random.key(seed), run)
        for_start, for_noise = jax.random.split(key)
        factor = jnp.exp(cv * jax.random.normal(for_start, ()))
        days = jax.vmap(lambda d: jax.random.fold_in(for_noise, d))(jnp.arange(n_days + 1))
        return base * factor, days

    return jax.vmap(one)(runs)


@compiled
def day_later(
    reactor: Reactor, states: Float[Array, "L 10"], controls: Float[Array, "L 6"]
) -> tuple[Float[Array, "L 10"], Array]:
    """States a day later, and a result code of each run.

    Args:
        reactor: Reactors, one for each run.
        states: States of the plant.
        controls: Set-points.
    """
    plan = make_plan(reactor, states, controls, jnp.full(1, HOURS_PER_DAY))
    out = integrate(reactor, plan, Tolerances(), Method())
    return out.concentrations[:, 1], out.result


@compiled
def read_samples(
    kinetics: Any,
    states: Float[Array, "L 10"],
    cv: Float[Array, " 13"],
    lost: Float[Array, ""],
    keys: Array,
) -> tuple[Float[Array, "L 13"], Float[Array, "L 13"]]:
    """Truth, and what is read of it.

    Args:
        kinetics: Kinetics of each run.
        states: States of the plant.
        cv: Scatter of each species [-].
        lost: Probability that a reading is lost [-].
        keys: A key for each run.
    """
    truth = observe(kinetics, states)
    noisy = jax.vmap(lambda row, key: apply_noise(row, cv, lost, key=key, via_index=_VIA))(
        truth, keys
    )
    return truth, noisy.at[:, _VCV].set(cell_volume_fraction(noisy[:, _VCD], noisy[:, _DIAM]))
