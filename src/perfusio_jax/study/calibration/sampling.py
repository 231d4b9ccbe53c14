"""The posterior by the no-U-turn sampler, all chains in one program.

The chains are moved in white coordinates with masses of their own; a part of the draws is one call,
so that a caller may say how far it is. NumPyro's kernel is built anew inside each program, which
costs nothing: only shapes are traced.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.infer.hmc import hmc
from numpyro.infer.util import ParamInfo

from perfusio_jax._core import ConfigError, Key, SimulationError
from perfusio_jax._core.programs import compiled
from perfusio_jax._core.progress import compiling
from perfusio_jax.study.calibration.model import White, potential, potentials
from perfusio_jax.study.calibration.problem import Problem

AFAR = 1.5
"""How far chains begin from the most probable point [its standard deviations]: chains that begin
together could not disagree."""
_PART = 10
"""Draws that are one call."""
_TRIES = 8

OnPart = Callable[[int, int], None]
"""Is called with the draws done and those to come, warm-up included."""


class Plan(NamedTuple):
    """How it is sampled; static."""

    n_warmup: int = 200
    """Draws of a chain that tune it and are thrown away."""
    n_draws: int = 250
    """Draws of a chain that are kept."""
    n_chains: int = 4
    """Chains."""
    target: float = 0.85
    """Share of proposals the step size aims to have taken [-]."""
    max_depth: int = 8
    """Doublings of a path at most."""

    def checked(self) -> "Plan":
        """The plan in whole parts.

        Raises:
            ConfigError: If a number is out of range.
        """
        if self.n_warmup < 20 or self.n_draws < 20 or self.n_chains < 2:
            raise ConfigError(
                f"{self.n_chains} chains with {self.n_warmup} and {self.n_draws} draws; at least 2 "
                "with 20 each are needed to say anything of them."
            )
        if not 0.5 <= self.target <= 0.99 or not 1 <= self.max_depth <= 12:
            raise ConfigError(
                f"target={self.target:g}, max_depth={self.max_depth}; allowed are 0.5 to 0.99 and "
                "1 to 12."
            )

        def whole(n: int) -> int:
            return -(-n // _PART) * _PART

        return self._replace(n_warmup=whole(self.n_warmup), n_draws=whole(self.n_draws))


class Chains(NamedTuple):
    """What the sampler did."""

    u: Float[np.ndarray, "C S D"]
    """Draws of everything unknown."""
    potential: Float[np.ndarray, "C S"]
    """Negative logarithm of the posterior, up to a constant."""
    energy: Float[np.ndarray, "C S"]
    """Energy of the draws."""
    is_divergent: np.ndarray
    """Whether a path left for where its step was too long or nothing runs `(C,S)`."""
    n_steps: np.ndarray
    """Derivatives each draw took `(C,S)`."""
    accepted: Float[np.ndarray, "C S"]
    """Share of a path's points that would be taken [-]."""
    step_size: Float[np.ndarray, " C"]
    """Of each chain after the warm-up [-]."""
    n_gradients: int
    """Derivatives in all, warm-up included."""


def sample(
    problem: Problem,
    white: White,
    plan: Plan,
    *,
    key: Key,
    on_part: OnPart | None = None,
) -> Chains:
    """Draw from the posterior.

    Args:
        problem: What is asked.
        white: Coordinates around its most probable point.
        plan: How.
        key: Random key.
        on_part: Told how far it is.

    Raises:
        ConfigError: If the plan makes no sense.
        SimulationError: If no start of the chains can be simulated.

    Reference:
        Hoffman, Gelman (2014), Betancourt (2017); the implementation is NumPyro's.
    """
    plan = plan.checked()
    for_start, for_chain = jax.random.split(key)
    v, value, slope = _places(problem, white, plan, for_start)
    state = _begun((v, value, slope), plan, for_chain)
    total = plan.n_warmup + plan.n_draws
    kept: list[Any] = []
    n_gradients = 0
    for done in range(0, total, _PART):
        state, seen = _part(problem, white, state, plan)
        n_gradients += int(np.sum(seen["n_steps"]))
        if done >= plan.n_warmup:
            kept.append(jax.tree.map(np.asarray, seen))
        if on_part is not None:
            on_part(done + _PART, total - done - _PART)
    joined = {k: np.concatenate([part[k] for part in kept], axis=1) for k in kept[0]}
    scale, centre = np.asarray(white.scale), np.asarray(white.centre)
    return Chains(
        u=centre + joined["v"] @ scale.T,
        potential=joined["potential"],
        energy=joined["energy"],
        is_divergent=joined["is_divergent"],
        n_steps=joined["n_steps"],
        accepted=joined["accepted"],
        step_size=joined["step_size"][:, -1],
        n_gradients=n_gradients,
    )


def _places(problem: Problem, white: White, plan: Plan, key: Key) -> tuple[Array, Array, Array]:
    """Where chains begin, nearer to the middle where the plant cannot be run."""
    shape = (plan.n_chains, white.centre.size)
    v = AFAR * jax.random.normal(key, shape)
    is_fine = np.zeros(plan.n_chains, bool)
    for _ in range(_TRIES):
        value, slope = potentials(problem, white, v)
        is_fine = np.isfinite(np.asarray(value)) & np.isfinite(np.asarray(slope)).all(axis=1)
        if is_fine.all():
            return v, value, slope
        v = jnp.where(jnp.asarray(is_fine)[:, None], v, 0.5 * v)
    raise SimulationError(
        f"{int((~is_fine).sum())} of {plan.n_chains} chains find no place to begin at: the runs "
        "cannot be simulated near their most probable constants; look at the mechanism."
    )


def _kernel(potential_of: Any, at: tuple[Array, Array, Array], plan: Plan, key: Key) -> Any:
    """State of one chain, and what moves it."""
    starts, moves = hmc(potential_of, algo="NUTS")
    v, value, slope = at
    state = starts(
        ParamInfo(v, value, slope),
        num_warmup=plan.n_warmup,
        step_size=0.3,
        target_accept_prob=plan.target,
        trajectory_length=None,  # pyright: ignore[reportArgumentType]
        max_tree_depth=plan.max_depth,
        rng_key=key,
    )
    return state, moves


def _nothing(v: Array) -> Array:
    return jnp.sum(v)  # the first state is given with its value and slope, and asks for none


def _begun(at: tuple[Array, Array, Array], plan: Plan, key: Key) -> Any:
    keys = jax.random.split(key, plan.n_chains)
    return jax.vmap(lambda one, k: _kernel(_nothing, one, plan, k)[0])(at, keys)


@compiled
def _part(problem: Problem, white: White, state: Any, plan: Plan) -> tuple[Any, Any]:
    """Some draws of all chains."""
    compiling("the sampler")

    def of(v: Array) -> Array:
        return potential(problem, white, v)

    def next_one(state: Any) -> Any:
        held: list[Any] = []

        def shaped() -> Any:
            one = (state.z, state.potential_energy, state.z_grad)
            begun, moves = _kernel(of, one, plan, state.rng_key)
            held.append(moves)
            return begun

        jax.eval_shape(shaped)  # the kernel learns its settings, and nothing is computed
        return held[0](state, (), {})

    def draw(state: Any, _: None) -> tuple[Any, Any]:
        state = jax.vmap(next_one)(state)
        return state, {
            "v": state.z,
            "potential": state.potential_energy,
            "energy": state.energy,
            "is_divergent": state.diverging,
            "n_steps": state.num_steps,
            "accepted": state.accept_prob,
            "step_size": state.adapt_state.step_size,
        }

    state, seen = jax.lax.scan(draw, state, None, length=_PART)
    return state, {name: jnp.swapaxes(value, 0, 1) for name, value in seen.items()}
