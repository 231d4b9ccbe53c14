"""The posterior by the no-U-turn sampler, all chains in one program.

The chains are moved in white coordinates with unit masses. The warm-up has stages: after each but
the last, coordinates are made anew from what all chains drew together and from the slopes there.
Where draws x have the covariance S, their slopes have S^-1, so that of few draws both together tell
more than the draws alone; of a normal law they tell S exactly once there are more draws than
directions.

A part of the draws is one call, so that a caller may say how far it is. NumPyro's kernel is built
anew inside each program, which costs nothing: only shapes are traced.
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
_STAGES = 3
"""Parts of the warm-up; each has the same number of draws, and so they share one program."""
_PSEUDO = 1.0
"""Draws the coordinates as they are weigh against those that make new ones."""
_STRETCH = 100.0
"""How much longer or shorter a direction may become at once, in variance."""

OnPart = Callable[[int, int], None]
"""Is called with the draws done and those to come, warm-up included."""


class Plan(NamedTuple):
    """How it is sampled; static."""

    n_warmup: int = 180
    """Draws of a chain that tune it and are thrown away, in three stages."""
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

        def whole(n: int, part: int) -> int:
            return -(-n // part) * part

        return self._replace(
            n_warmup=whole(self.n_warmup, _STAGES * _PART), n_draws=whole(self.n_draws, _PART)
        )

    @property
    def stage(self) -> int:
        """Draws of one stage of the warm-up."""
        return self.n_warmup // _STAGES


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
    for_start, *for_stages = jax.random.split(key, 1 + _STAGES)
    at = _places(problem, white, plan, for_start)
    total = plan.n_warmup + plan.n_draws
    done, n_gradients, kept = 0, 0, []
    for stage, for_chain in enumerate(for_stages):
        is_last = stage == _STAGES - 1
        state = _begun(at, plan, for_chain)
        ends = total if is_last else done + plan.stage
        while done < ends:
            state, seen = _part(problem, white, state, plan)
            seen = jax.tree.map(np.asarray, seen)
            n_gradients += int(np.sum(seen["n_steps"]))
            done += _PART
            kept.append(seen)
            if on_part is not None:
                on_part(done, total - done)
        if not is_last:
            white, at = _remade(white, kept, at=(state.z, state.potential_energy, state.z_grad))
            kept = []
    kept = kept[plan.stage // _PART :]
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


def _remade(
    white: White, parts: list[dict[str, np.ndarray]], at: tuple[Array, Array, Array]
) -> tuple[White, tuple[Array, Array, Array]]:
    """New coordinates from the later half of a stage, and where the chains stand in them."""
    half = parts[len(parts) // 2 :]
    v, slopes = (
        np.concatenate([part[name] for part in half], axis=1).reshape(-1, white.centre.size)
        for name in ("v", "slope")
    )
    root = square_root(v, slopes)
    centre = np.asarray(white.centre) + np.asarray(white.scale) @ v.mean(axis=0)
    remade = White(jnp.asarray(centre), jnp.asarray(np.asarray(white.scale) @ root))
    z, slope = np.asarray(at[0]), np.asarray(at[2])
    moved = (z - v.mean(axis=0)) @ np.linalg.inv(root).T
    return remade, (jnp.asarray(moved), at[1], jnp.asarray(slope @ root))


def square_root(
    draws: Float[np.ndarray, "N D"], slopes: Float[np.ndarray, "N D"]
) -> Float[np.ndarray, "D D"]:
    """Square root of a covariance, by draws of a law and by the slopes of its logarithm there.

    The covariance S is the one that carries slopes to draws in their second moments, S B S = A:
    the geometric mean of A, the covariance of the draws, and of the inverse of B, that of the
    slopes. It is exact for a normal law as soon as the draws span the space. Both lean towards
    the identity by one draw.

    Args:
        draws: Points.
        slopes: Derivatives of the logarithm of the density, or of its negative, at them.

    Returns:
        A symmetric R with R R = S.

    Reference:
        Pusz, Woronowicz (1975) for the mean; Seyboldt, Carlson, Carpenter (2026), arXiv 2603.18845,
        for its use as a metric of a sampler.
    """
    n, d = draws.shape

    def spread(x: np.ndarray) -> np.ndarray:
        away = x - x.mean(axis=0)
        return (away.T @ away + _PSEUDO * np.eye(d)) / (n + _PSEUDO)

    def power(x: np.ndarray, exponent: float) -> np.ndarray:
        values, vectors = np.linalg.eigh(0.5 * (x + x.T))
        return (vectors * values**exponent) @ vectors.T

    a, b = spread(draws), spread(slopes)
    root, back = power(b, 0.5), power(b, -0.5)
    found = back @ power(root @ a @ root, 0.5) @ back
    values, vectors = np.linalg.eigh(0.5 * (found + found.T))
    return (vectors * np.sqrt(np.clip(values, 1.0 / _STRETCH, _STRETCH))) @ vectors.T


def _kernel(potential_of: Any, at: tuple[Array, Array, Array], plan: Plan, key: Key) -> Any:
    """State of one chain, and what moves it."""
    starts, moves = hmc(potential_of, algo="NUTS")
    v, value, slope = at
    state = starts(
        ParamInfo(v, value, slope),
        num_warmup=plan.stage,
        step_size=0.3,
        adapt_mass_matrix=False,
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
            "slope": state.z_grad,
            "potential": state.potential_energy,
            "energy": state.energy,
            "is_divergent": state.diverging,
            "n_steps": state.num_steps,
            "accepted": state.accept_prob,
            "step_size": state.adapt_state.step_size,
        }

    state, seen = jax.lax.scan(draw, state, None, length=_PART)
    return state, {name: jnp.swapaxes(value, 0, 1) for name, value in seen.items()}
