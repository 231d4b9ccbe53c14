"""Linearly implicit (Rosenbrock) methods, written once for every use.

One step needs the right-hand side, and a function that solves with I/(h gamma) - J. The batched
integrator gives it a sparse factorisation that is unrolled over scalar lanes; the diffrax
solver gives it a dense one. The state is a tuple of arrays of one shape.

Stages are in the transformed variables of Hairer and Wanner, which need no product with J:

    (I/(h g) - J) U_i = f(t + alpha_i h, y + sum_j a_ij U_j) + sum_j c_ij U_j / h + gamma_i h f_t
    y_new = y + sum_i m_i U_i

Both methods are stiffly accurate and L-stable: the last stage is the error estimate, and its
argument is the embedded solution of one order less.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

Parts = tuple[Array, ...]
Solve = Callable[[Parts], Parts]


class Tableau(NamedTuple):
    """Coefficients of a stiffly accurate Rosenbrock method."""

    name: str
    order: int
    """Order of the solution; the embedded one has order - 1."""
    gamma: float
    a: tuple[tuple[float, ...], ...]
    c: tuple[tuple[float, ...], ...]
    alpha: tuple[float, ...]
    """Stage times over h."""
    gamma_sum: tuple[float, ...]
    """Weights of the time derivative."""

    @property
    def n_stages(self) -> int:
        """Number of stages."""
        return len(self.a)


RODAS3: Final = Tableau(
    name="Rodas3",
    order=3,
    gamma=0.5,
    a=((), (0.0,), (2.0, 0.0), (2.0, 0.0, 1.0)),
    c=((), (4.0,), (1.0, -1.0), (1.0, -1.0, -8.0 / 3.0)),
    alpha=(0.0, 0.0, 1.0, 1.0),
    gamma_sum=(0.5, 1.5, 0.0, 0.0),
)
"""Sandu et al. (1997), order 3(2), four stages and three evaluations of the right-hand side."""

_RODAS4_A5 = (1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950)
RODAS4: Final = Tableau(
    name="Rodas4",
    order=4,
    gamma=0.25,
    a=(
        (),
        (1.544,),
        (0.9466785280815826, 0.2557011698983284),
        (3.314825187068521, 2.896124015972201, 0.9986419139977817),
        _RODAS4_A5,
        (*_RODAS4_A5, 1.0),
    ),
    c=(
        (),
        (-5.6688,),
        (-2.430093356833875, -0.2063599157091915),
        (-0.1073529058151375, -9.594562251023355, -20.47028614809616),
        (7.496443313967647, -10.24680431464352, -33.99990352819905, 11.70890893206160),
        (
            8.083246795921522,
            -7.981132988064893,
            -31.52159432874371,
            16.31930543123136,
            -6.058818238834054,
        ),
    ),
    alpha=(0.0, 0.386, 0.21, 0.63, 1.0, 1.0),
    gamma_sum=(0.25, -0.1043, 0.1035, -0.3620000000000023e-01, 0.0, 0.0),
)
"""Hairer and Wanner (1996), order 4(3), six stages."""


def _axpy(y: Parts, scale: Array | float, u: Parts) -> Parts:
    return tuple(v + scale * w for v, w in zip(y, u, strict=True))


class Stages(NamedTuple):
    """Result of one step."""

    y: Parts
    """Solution at the end of the step."""
    error: Parts
    """Difference to the embedded solution."""
    stages: tuple[Parts, ...]
    """U_i."""
    arguments: tuple[Parts, ...]
    """Where the right-hand side was evaluated for each."""


def rosenbrock_step(
    tableau: Tableau,
    field: Callable[[Array | float, Parts], Parts],
    solve: Solve,
    y: Parts,
    h: Array,
    *,
    time_derivative: Parts | None = None,
) -> Stages:
    """Take one step.

    Args:
        tableau: Method.
        field: Right-hand side f(alpha, y), alpha being the stage's time over h.
        solve: Solves with I/(h gamma) - J at the start of the step.
        y: State, arrays of one shape.
        h: Step, scalar or of that shape.
        time_derivative: f_t at the start; None for an autonomous field.

    Returns:
        New state, error estimate and what the stages were.
    """
    inverse_h = 1.0 / h
    stages: list[Parts] = []
    arguments: list[Parts] = []
    f_start: Parts | None = None
    argument = y
    for i in range(tableau.n_stages):
        argument = y
        for a, u in zip(tableau.a[i], stages, strict=True):
            if a:
                argument = _axpy(argument, a, u)
        arguments.append(argument)
        at_start = not any(tableau.a[i]) and (time_derivative is None or tableau.alpha[i] == 0.0)
        if at_start and f_start is not None:
            f = f_start
        else:
            f = field(tableau.alpha[i], argument)
            f_start = f if at_start else f_start
        rhs = f
        for c, u in zip(tableau.c[i], stages, strict=True):
            if c:
                rhs = _axpy(rhs, c * inverse_h, u)
        if time_derivative is not None and tableau.gamma_sum[i]:
            rhs = _axpy(rhs, tableau.gamma_sum[i] * h, time_derivative)
        stages.append(solve(rhs))
    y_new = _axpy(argument, 1.0, stages[-1])
    return Stages(y_new, stages[-1], tuple(stages), tuple(arguments))


@functools.cache
def quadrature_weights(tableau: Tableau) -> tuple[float, ...]:
    """Weights w that integrate z' = q(y) along a step, as rows of the same method would.

    Such a row has the stages Z_i = h gamma (q(Y_i) + q_y U_i) + gamma sum_j c_ij Z_j, which is
    linear in the brackets, so that the increment is h sum_i w_i (q(Y_i) + q_y U_i). A linear
    relation between y and z that holds for the equations holds for these numbers to rounding:
    this is what closes the mass balance.
    """
    n = tableau.n_stages
    c = np.zeros((n, n))
    for i, row in enumerate(tableau.c):
        c[i, : len(row)] = row
    m = np.append(np.asarray(tableau.a[-1]), 1.0)
    weights = tableau.gamma * np.linalg.solve((np.eye(n) - tableau.gamma * c).T, m)
    return tuple(float(w) for w in weights)


class Pattern(NamedTuple):
    """Structural zeros of a bordered Jacobian, and an order of elimination without much fill."""

    n_states: int
    """Number of states; unknown number `n_states` is the border."""
    blocks: tuple[tuple[int, ...], ...]
    """Unknowns of each block, in order of elimination; a block needs itself and earlier ones."""
    depends: tuple[frozenset[int], ...]
    """Unknowns each row can depend on."""

    @property
    def border(self) -> int:
        """Number of the border's unknown."""
        return self.n_states


def make_pattern(depends: Sequence[Iterable[int]]) -> Pattern:
    """Find blocks that can be solved one after the other, and order each against fill.

    Args:
        depends: Per row the unknowns it can depend on; the last row is the border's.

    Returns:
        Strongly connected blocks in order; within a block Markowitz' order, the border last.
    """
    rows = [frozenset(d) | {i} for i, d in enumerate(depends)]
    n = len(rows)
    reach = np.array([[j in rows[i] for j in range(n)] for i in range(n)])
    for k in range(n):  # Warshall: who depends on whom, in any number of steps
        reach |= reach[:, k : k + 1] & reach[k : k + 1, :]
    blocks: list[tuple[int, ...]] = []
    left = set(range(n))
    while left:
        for i in sorted(left):
            component = {j for j in left if reach[i, j] and reach[j, i]}
            if component == {j for j in left if reach[i, j]}:
                blocks.append(_markowitz(component, rows, last=n - 1))
                left -= component
                break
    return Pattern(n - 1, tuple(blocks), tuple(rows))


def _markowitz(block: set[int], depends: Sequence[frozenset[int]], last: int) -> tuple[int, ...]:
    rows = {i: set(depends[i]) & block for i in block}
    order: list[int] = []
    left = set(block)
    while left:

        def cost(k: int) -> tuple:
            in_column = sum(k in rows[i] for i in left) - 1
            return (k == last, (len(rows[k] & left) - 1) * in_column, k)

        k = min(left, key=cost)
        left.remove(k)
        order.append(k)
        for i in left:
            if k in rows[i]:
                rows[i] |= rows[k] & left
    return tuple(order)


def factorise(
    field: Callable[[Parts, Array], Parts],
    border: Callable[[Parts], Array],
    y: Parts,
    inverse_h_gamma: Array,
    pattern: Pattern,
) -> Solve:
    """Factorise I/(h gamma) - J for f(y) = field(y, border(y)), without pivoting.

    Where all of f's nonlinear coupling runs through one scalar w = border(y), J is a sparse
    matrix plus one of rank one. Instead of multiplying that out, w is kept as an unknown:

        [ I/(h gamma) - field_y   -field_w ] [x]   [r]
        [ -border_y                   1    ] [w] = [0]

    and elimination of this sparse system in a good order makes almost no fill. Derivatives are
    taken in forward mode, one column at a time, only where the pattern allows any.

    No pivoting is needed: the diagonal dominates at the step sizes the error control admits,
    and a wrong factor can only raise the error estimate, which then rejects the step.

    XLA's fusion on CPU computes a cheap value again in each place that reads it; down a chain
    of eliminations that grows like a power. It never repeats a division, so every number that
    is read more than once leaves here as a quotient, if need be by `one`. That makes the
    program eight times smaller and three times faster, and changes no bit.

    Args:
        field: Right-hand side with the border as second argument.
        border: Scalar the states act through.
        y: State at the start of the step.
        inverse_h_gamma: 1/(h gamma), scalar or of the state's shape.
        pattern: Structural zeros.

    Returns:
        A function that solves for a right-hand side.
    """
    n = pattern.n_states
    one = inverse_h_gamma / inverse_h_gamma
    entry = {key: -v for key, v in bordered_jacobian(field, border, y, pattern).items()}
    for i in range(n):
        diagonal = entry.get((i, i))
        entry[i, i] = inverse_h_gamma if diagonal is None else inverse_h_gamma + diagonal
    entry[n, n] = jnp.ones_like(inverse_h_gamma)
    for block in pattern.blocks:
        for position, k in enumerate(block):
            rest = block[position + 1 :]
            entry[k, k] = entry[k, k] / one
            column = [i for i in rest if (i, k) in entry]
            row = [j for j in rest if (k, j) in entry]
            for j in row:
                entry[k, j] = entry[k, j] / entry[k, k]
            for i in column:
                entry[i, k] = entry[i, k] / one
                for j in row:
                    fill = entry[i, k] * entry[k, j]
                    entry[i, j] = entry[i, j] - fill if (i, j) in entry else -fill

    def solve(rhs: Parts) -> Parts:
        x: dict[int, Array] = dict(enumerate(rhs))
        x[n] = jnp.zeros_like(rhs[0])
        done: list[int] = []
        for block in pattern.blocks:
            for position, i in enumerate(block):
                for j in (*done, *block[:position]):
                    if (i, j) in entry:
                        x[i] = x[i] - entry[i, j] * x[j]
                x[i] = x[i] / entry[i, i]
            for position in reversed(range(len(block))):
                i = block[position]
                for j in block[position + 1 :]:
                    if (i, j) in entry:
                        x[i] = x[i] - entry[i, j] * x[j]
                x[i] = x[i] / one
            done.extend(block)
        return tuple(x[i] for i in range(n))

    return solve


def bordered_jacobian(
    field: Callable[[Parts, Array], Parts],
    border: Callable[[Parts], Array],
    y: Parts,
    pattern: Pattern,
) -> dict[tuple[int, int], Array]:
    """Derivatives of field (rows of the states) and border (last row) where they can differ from 0.

    Args:
        field: Right-hand side with the border as second argument.
        border: Scalar the states act through.
        y: State.
        pattern: Structural zeros.

    Returns:
        Entry by row and column; column `pattern.border` belongs to the border's value.
    """
    n = pattern.n_states
    w = border(y)
    entry: dict[tuple[int, int], Array] = {}
    for j in range(n + 1):
        rows = [i for i in range(n) if j in pattern.depends[i]]
        value = y[j] if j < n else w

        def column(value: Array, j: int = j) -> Parts:
            if j == n:
                return field(y, value)
            return field((*y[:j], value, *y[j + 1 :]), w)

        if rows:
            _, tangent = jax.jvp(column, (value,), (jnp.ones_like(value),))
            for i in rows:
                entry[i, j] = tangent[i]
    for j in pattern.depends[n] - {n}:

        def through(value: Array, j: int = j) -> Array:
            return border((*y[:j], value, *y[j + 1 :]))

        _, entry[n, j] = jax.jvp(through, (y[j],), (jnp.ones_like(y[j]),))
    return entry


def bordered_product(entry: dict[tuple[int, int], Array], pattern: Pattern, x: Parts) -> Parts:
    """The Jacobian of f(y) = field(y, border(y)) times a vector."""
    n = pattern.n_states
    vector = [*x, jnp.zeros_like(x[0])]
    for j in sorted(pattern.depends[n] - {n}):
        vector[n] = vector[n] + entry[n, j] * x[j]
    out = []
    for i in range(n):
        total = jnp.zeros_like(x[i])
        for j in sorted(pattern.depends[i]):
            if (i, j) in entry:
                total = total + entry[i, j] * vector[j]
        out.append(total)
    return tuple(out)
