"""Rounds of a search: all starts climb, batches exchange candidates, the best ends climb on."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from perfusio_jax._core import Array, Float, Int, Key
from perfusio_jax.bed.optimiser.lbfgs import Ends
from perfusio_jax.bed.optimiser.settings import SearchSettings

_SHAKES = (0.02, 0.004)
"""Deviations by which the best batch is moved before it climbs again, normalised [-]."""

_LAST_ENDS = 6
"""Best ends that climb on at last: coarse climbs do not always rank them rightly."""

_BASES = 3
"""Best batches, different in value, whose places are tried in an exchange."""


def in_rounds(
    descend: Callable[[Array, Array, Array], Ends],
    evaluate: tuple[Callable[[Array], Array], Callable[[Array], Array]],
    given: tuple[Float[Array, "R q d"], Float[Array, "K d"] | None],
    n_exchanges: int,
    settings: SearchSettings,
    *,
    key: Key | None,
) -> tuple[Ends, Int[Array, ""]]:
    """All starts climb coarsely, batches exchange candidates, the best ends climb on.

    A batch is as good as its members together: ends that stopped in different optima hold
    members the best one lacks. Candidates of other ends and of raw points are tried in every
    place of the three best batches, the best replacements climb, and so on while that helps. One
    loop body serves all rounds, so that it compiles once.

    Args:
        descend: From starts, how many of them count, and a tolerance to ends.
        evaluate: Values of many batches, and what brings batches into the limits.
        given: Starts, and feasible candidates a batch may take, good ones first; all in
            normalised coordinates.
        n_exchanges: Exchanges, at most.
        settings: Sizes and tolerances.
        key: Draws where the best batch is moved to.

    Returns:
        Ends, and how many batches were tried in exchanges.
    """
    z0, others = given
    values, project = evaluate
    R, q, d = z0.shape
    n_ends = min(R * q, settings.exchange_pool // (1 if others is None else 2))
    n_next = min(settings.n_second, R)
    fine = settings.value_tolerance
    coarse = max(fine, settings.coarse_tolerance)
    between = max(fine, 1e-3 * coarse)

    def more(carry: tuple[Any, ...]) -> Array:
        return carry[4] < 3

    def body(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        ends, starts, n_starts, k, phase, n_swaps = carry
        is_first = phase == 0
        tolerance = jnp.asarray([coarse, between, fine], z0.dtype)[phase]
        new = descend(starts, n_starts, tolerance)
        top, best = jnp.argmin(new.f), jnp.argmin(ends.f)
        gained = is_first | (new.f[top] < ends.f[best])
        helped = is_first | (new.f[top] < ends.f[best] - 1e-6 * (1.0 + jnp.abs(ends.f[best])))
        ends = _merged(ends, new, (is_first, gained, best, top))
        # phases: 0 all starts, 1 exchanges, 2 the last climb, 3 the end
        exchanges = (phase < 2) & helped & (k < n_exchanges)
        phase = jnp.where(exchanges, 1, jnp.where(phase < 2, 2, 3))
        order = jnp.argsort(ends.f)
        batches = ends.z[order]

        def shaken() -> Array:
            # samples make kinks on which a climb can come to rest: start from nearby, too
            noise = jax.random.normal(jax.random.fold_in(key, k), (2, q, d))  # pyright: ignore
            return project(batches[:1] + jnp.asarray(_SHAKES, z0.dtype)[:, None, None] * noise)

        def filled(chosen: Array) -> tuple[Array, Array]:
            chosen = chosen[:n_next]
            n = jnp.asarray(chosen.shape[0])
            return jnp.zeros_like(z0).at[: chosen.shape[0]].set(chosen), n

        def finish() -> tuple[Array, Array, Array]:
            chosen = batches[:_LAST_ENDS]
            if q > 1:
                chosen = jnp.concatenate([chosen[:1], shaken(), chosen[1:]])
            return (*filled(chosen), jnp.zeros((), int))

        def exchange() -> tuple[Array, Array, Array]:
            pool = batches.reshape(R * q, d)[:n_ends]
            if others is not None:
                pool = jnp.concatenate([pool, others[: settings.exchange_pool - n_ends]])
            # the best end, the best one that is another, and so on
            chosen, level = [batches[0]], ends.f[order[0]]
            for _ in range(_BASES - 1):
                is_other = ends.f > level + 1e-6 * (1.0 + jnp.abs(level))
                next_best = jnp.argmin(jnp.where(is_other, ends.f, jnp.inf))
                chosen.append(ends.z[next_best])
                level = ends.f[next_best]
            bases = jnp.stack(chosen)
            place = jnp.eye(q, dtype=bool)[None, :, None, :, None]
            tried = jnp.where(place, pool[None, None, :, None, :], bases[:, None, None])
            found = values(tried.reshape(-1, q, d)).reshape(_BASES * q, -1)
            # the best replacement in every place: several of one place end in one optimum
            each = jnp.argmin(found, axis=1)
            swapped = tried.reshape(_BASES * q, -1, q, d)[jnp.arange(_BASES * q), each]
            ranked = swapped[jnp.argsort(jnp.min(found, axis=1))]
            starts = jnp.concatenate([bases[:1], ranked[:2], shaken(), ranked[2:]])
            return (*filled(starts), jnp.asarray(found.size))

        if n_exchanges:
            starts, n_starts, n_new = jax.lax.cond(exchanges, exchange, finish)
        else:
            starts, n_starts, n_new = finish()
        return ends, starts, n_starts, k + 1, phase, n_swaps + jnp.where(phase < 3, n_new, 0)

    # not by `eval_shape`, which would trace the objective a second time
    zero, nothing, none = jnp.zeros((), int), jnp.zeros(R, z0.dtype), jnp.zeros(R, int)
    blank = Ends(jnp.zeros_like(z0), nothing, jnp.zeros_like(z0), none, none, none, zero)
    first = (blank, z0, jnp.asarray(R), zero, zero, zero)
    ends, *_, n_swaps = jax.lax.while_loop(more, body, first)
    return ends, n_swaps


def _merged(old: Ends, new: Ends, rule: tuple[Array, ...]) -> Ends:
    """The first round's ends, or the old ones with the best replaced where something is better."""
    is_first, gained, best, top = rule

    def one(before: Array, after: Array) -> Array:
        replaced = before.at[best].set(after[top]) if before.ndim else before
        return jnp.where(is_first, after, jnp.where(gained, replaced, before))

    merged = jax.tree.map(one, old, new)
    spent = old.n_evals.at[best].add(jnp.sum(new.n_evals))
    return eqx.tree_at(
        lambda e: (e.n_evals, e.n_rounds),
        merged,
        (jnp.where(is_first, new.n_evals, spent), old.n_rounds + new.n_rounds),
    )
