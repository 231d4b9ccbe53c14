"""One Rosenbrock step of the plant, and its derivative."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from perfusio_jax.mechanistic.plan import N_STATE, Method, Totals
from perfusio_jax.mechanistic.reactor import Reactor
from perfusio_jax.mechanistic.rosenbrock import (
    Pattern,
    Solve,
    Stages,
    bordered_jacobian,
    bordered_product,
    factorise,
    make_pattern,
    quadrature_weights,
    rosenbrock_step,
)
from perfusio_jax.mechanistic.vector_field import (
    N_PLANT,
    DayInputs,
    Parts,
    fluxes,
    growth_rate,
    vector_field,
)


class Step(NamedTuple):
    """Result of one step."""

    y: Parts
    """Amounts and volume at its end."""
    error: Parts
    """Difference to the embedded solution."""
    quadrature: Parts
    """Increments of the totals."""


@functools.cache
def jacobian_pattern(mode: str, perfusion_mode: str) -> Pattern:
    """Structural zeros of the plant's Jacobian; the growth rate is the border (unknown 11)."""
    mu = N_STATE
    # Xv Xd Xl Glc Gln Glu Lac Amm Pyr Titer V mu; what each derivative can depend on. Glucose is
    # everywhere because the pump's volume leaves through the filter.
    depends: list[set[int]] = [
        {0, 3, mu},
        {0, 1, 3},
        {1, 2, 3},
        {0, 3, mu},
        {0, 3, 4, mu},
        {0, 3, 4, 5, mu},
        {0, 3, 6, mu},
        {0, 3, 4, 7, 8, mu},
        {3, 7, 8},
        {0, 3, 9, mu},
        set(),
        {0, 3, 4, 6, 7},
    ]
    if perfusion_mode == "cspr":
        for row in depends[:N_PLANT]:
            row.add(0)
    if mode == "fed_batch":
        for row in depends:
            row.add(N_PLANT)
        depends[N_PLANT].add(3)
        if perfusion_mode == "cspr":
            depends[N_PLANT].add(0)
    return make_pattern(depends)


def quadrature(reactor: Reactor, inputs: DayInputs, y: Parts, kind: Totals) -> Parts:
    """What the totals are integrals of."""
    flow = fluxes(reactor, inputs, y)
    streams = (flow.perfusion, flow.bleed, flow.glucose, flow.harvest)
    if kind == "streams":
        return streams
    return (*flow.inflow, *flow.outflow, *flow.reaction, *streams)


def plant_step(reactor: Reactor, inputs: DayInputs, y: Parts, h: Array, method: Method) -> Step:
    """One Rosenbrock step of the plant.

    Its derivative is written out below: left to itself, differentiation goes through every
    operation of the elimination, and the compiler takes minutes over the result.

    Args:
        reactor: Cells and vessel.
        inputs: Constants of the interval.
        y: Amounts and volume.
        h: Length of the step [h].
        method: Tableau and totals.
    """

    @jax.custom_jvp
    def step(reactor: Reactor, inputs: DayInputs, y: Parts, h: Array) -> Step:
        out, _ = _take(reactor, inputs, y, h, method)
        trail = _stack(out.arguments), _stack(out.stages)
        return Step(out.y, out.error, _gained(reactor, inputs, y, h, trail, method))

    @functools.partial(step.defjvp, symbolic_zeros=True)
    def derivative(primals: tuple, tangents: tuple) -> tuple[Step, Step]:
        return _step_jvp(primals, tangents, method)

    return step(reactor, inputs, y, h)


def _take(
    reactor: Reactor, inputs: DayInputs, y: Parts, h: Array, method: Method
) -> tuple[Stages, Solve]:
    solve = factorise(
        lambda state, mu: vector_field(reactor, inputs, state, mu),
        lambda state: growth_rate(reactor, inputs, state),
        y,
        1.0 / (method.tableau.gamma * h),
        jacobian_pattern(reactor.mode, reactor.perfusion_mode),
    )
    out = rosenbrock_step(
        method.tableau, lambda _, state: vector_field(reactor, inputs, state), solve, y, h
    )
    return out, solve


def _gained(
    reactor: Reactor,
    inputs: DayInputs,
    y: Parts,
    h: Array,
    trail: tuple[Parts, Parts],
    method: Method,
) -> Parts:
    """Increments of the totals over a step with stacked arguments Y and stages U."""
    if method.totals == "none":
        return ()
    Y, U = trail
    weights = jnp.asarray(quadrature_weights(method.tableau), h.dtype)

    def q(state: Parts) -> Parts:
        return quadrature(reactor, inputs, state, method.totals)

    mean_U = tuple(jnp.tensordot(weights, u, axes=1) for u in U)
    _, total = jax.jvp(q, (y,), (mean_U,))
    # A loop keeps the program small; each pass adds one stage.
    total, _ = jax.lax.scan(lambda sums, x: (_add(sums, q(x[0]), x[1]), None), total, (Y, weights))
    return tuple(h * v for v in total)


def _step_jvp(primals: tuple, tangents: tuple, method: Method) -> tuple[Step, Step]:
    """Derivative of a step.

    Stage i solves W U_i = f(Y_i) + sum_j c_ij U_j / h with W = I/(h gamma) - J(y), hence

        W dU_i = df_i + dJ U_i + sum_j c_ij dU_j / h + (sum_j c_ij U_j - U_i / gamma) d(1/h)
        df_i = J(Y_i) dY_i + f_p(Y_i) dp

    dJ, the change of the Jacobian along dy and dp, is one for all stages: half the work of
    taking the second derivative along each U_i. Numbers that several places read leave as
    quotients, for the reason told at `rosenbrock.factorise`.
    """
    reactor, inputs, y, h = primals
    d_y, d_h = jax.tree.map(_instantiate, tangents[2:], primals[2:], is_leaf=_is_zero)
    # Constants that are not differentiated (all of the reactor in most roll-outs) stay out.
    active, d_active, rebuild = _active((reactor, inputs), tangents[:2])
    tableau = method.tableau
    # A stage never moves a constant volume, so the step's pattern leaves its column out; a
    # tangent may well move it.
    pattern = jacobian_pattern(reactor.mode, reactor.perfusion_mode)
    pattern = pattern._replace(depends=tuple(row | {N_PLANT} for row in pattern.depends))
    out, solve = _take(reactor, inputs, y, h, method)
    inverse_h = 1.0 / h
    d_inverse_h = -d_h * inverse_h * inverse_h
    Y, U = _stack(out.arguments), _stack(out.stages)

    one = jax.lax.stop_gradient(h) / jax.lax.stop_gradient(h)

    def jacobian(constants: Sequence[Array], y: Parts) -> dict:
        at = rebuild(constants)
        return bordered_jacobian(
            lambda state, mu: vector_field(*at, state, mu),
            lambda state: growth_rate(*at, state),
            y,
            pattern,
        )

    def moved(Y: Parts, d_Y: Parts) -> Parts:
        def f(constants: Sequence[Array], state: Parts) -> Parts:
            return vector_field(*rebuild(constants), state)

        return jax.jvp(f, (active, Y), (d_active, d_Y))[1]

    J, d_J = jax.jvp(jacobian, (active, y), (d_active, d_y))
    d_J = {place: v / one for place, v in d_J.items()}
    d_U: list[Parts] = []
    d_Y: list[Parts] = []
    for i in range(tableau.n_stages):
        d_argument = d_y
        u = out.stages[i]
        _, rhs = jax.jvp(lambda e, u=u: bordered_product(e, pattern, u), (J,), (d_J,))
        rhs = _add(rhs, u, -d_inverse_h / tableau.gamma)
        for a, u in zip(tableau.a[i], d_U, strict=True):
            if a:
                d_argument = _add(d_argument, u, a)
        for c, u, d_u in zip(tableau.c[i], out.stages, d_U, strict=False):
            if c:
                rhs = _add(rhs, d_u, c * inverse_h)
                rhs = _add(rhs, u, c * d_inverse_h)
        d_argument = tuple(v / one for v in d_argument)
        rhs = _add(rhs, moved(out.arguments[i], d_argument))
        rhs = tuple(v / one for v in rhs)
        d_Y.append(d_argument)
        d_U.append(solve(rhs))

    def gain(constants: Sequence[Array], y: Parts, h: Array, Y: Parts, U: Parts) -> Parts:
        return _gained(*rebuild(constants), y, h, (Y, U), method)

    gained, d_gained = jax.jvp(
        gain, (active, y, h, Y, U), (d_active, d_y, d_h, _stack(d_Y), _stack(d_U))
    )
    return (
        Step(out.y, out.error, gained),
        Step(_add(d_Y[-1], d_U[-1]), d_U[-1], d_gained),
    )


def _is_zero(leaf: Any) -> bool:
    return isinstance(leaf, jax.custom_derivatives.SymbolicZero)


def _instantiate(tangent: Any, primal: Array) -> Array:
    return jnp.zeros_like(primal) if _is_zero(tangent) else tangent


def _active(
    primals: tuple[Reactor, DayInputs], tangents: tuple
) -> tuple[Parts, Parts, Callable[[Sequence[Array]], tuple[Reactor, DayInputs]]]:
    """Leaves with a tangent, their tangents, and a function that puts such leaves back."""
    leaves, structure = jax.tree.flatten(primals)
    directions = jax.tree.leaves(tangents, is_leaf=_is_zero)
    where = [i for i, d in enumerate(directions) if not _is_zero(d)]

    def rebuild(active: Sequence[Array]) -> tuple[Reactor, DayInputs]:
        changed = list(leaves)
        for i, value in zip(where, active, strict=True):
            changed[i] = value
        return jax.tree.unflatten(structure, changed)

    return tuple(leaves[i] for i in where), tuple(directions[i] for i in where), rebuild


def _stack(parts: Sequence[Parts]) -> Parts:
    return tuple(jnp.stack(v) for v in zip(*parts, strict=True))


def _add(left: Parts, right: Parts, scale: Array | float = 1.0) -> Parts:
    return tuple(a + scale * b for a, b in zip(left, right, strict=True))
