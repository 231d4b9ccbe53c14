"""The plant's vector field for other solvers: the same equations, read off the traced function.

`jax.make_jaxpr` gives the scalar operations of the field. They are replayed with CasADi's
symbols, or written out as Python source. No peer solves a re-typed copy.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from perfusio_jax.mechanistic import Reactor, vector_field
from perfusio_jax.mechanistic.vector_field import DayInputs

N_STATE = 11
N_INPUTS = len(DayInputs._fields)


def trace(reactor: Reactor) -> Any:
    """Scalar operations of d(amounts, volume)/dt as a function of inputs and state."""
    return jax.make_jaxpr(lambda p, y: vector_field(reactor, DayInputs(*p), y))(
        tuple([1.0] * N_INPUTS), tuple([1.0] * N_STATE)
    )


def replay(
    closed: Any, values: Sequence[Any], ops: dict[str, Callable], emit: Callable[[Any], Any]
) -> list[Any]:
    """Run traced scalar operations on any kind of number.

    Args:
        closed: From `trace`.
        values: Inputs, then states.
        ops: Operation by primitive name.
        emit: Called on every new value; returns what stands for it.

    Returns:
        The outputs.

    Raises:
        NotImplementedError: If the field uses an operation `ops` lacks, by name.
    """
    known: dict[Any, Any] = dict(zip(closed.jaxpr.invars, values, strict=True))
    known.update(zip(closed.jaxpr.constvars, map(np.asarray, closed.consts), strict=True))

    def read(atom: Any) -> Any:
        value = known.get(atom) if not hasattr(atom, "val") else atom.val
        if isinstance(value, np.ndarray | np.generic) and np.ndim(value) == 0:
            return float(value)
        return value

    for equation in closed.jaxpr.eqns:
        name, args = equation.primitive.name, [read(v) for v in equation.invars]
        if name == "slice":
            (start,), (stop,) = equation.params["start_indices"], equation.params["limit_indices"]
            out = args[0][start:stop]
        elif name == "squeeze":
            out = float(np.asarray(args[0]).reshape(()))
        elif name in ("convert_element_type", "copy"):
            out = args[0]
        elif name == "integer_pow":
            out = emit(ops["integer_pow"](args[0], equation.params["y"]))
        elif name in ops:
            out = emit(ops[name](*args))
        else:
            raise NotImplementedError(f"the vector field uses {name}, which has no translation.")
        known[equation.outvars[0]] = out
    return [read(v) for v in closed.jaxpr.outvars]


def to_python(reactor: Reactor) -> Callable[[float, Sequence[float], Sequence[float]], list[float]]:
    """The field as plain Python: `rhs(t, amounts, inputs)`."""
    lines: list[str] = []

    def text(value: Any) -> str:
        return value if isinstance(value, str) else repr(float(value))

    def emit(value: str) -> str:
        lines.append(f"    v{len(lines)} = {value}")
        return f"v{len(lines) - 1}"

    ops: dict[str, Callable] = {
        "add": lambda a, b: f"{text(a)} + {text(b)}",
        "sub": lambda a, b: f"{text(a)} - {text(b)}",
        "mul": lambda a, b: f"{text(a)} * {text(b)}",
        "div": lambda a, b: f"{text(a)} / {text(b)}",
        "neg": lambda a: f"-{text(a)}",
        "abs": lambda a: f"abs({text(a)})",
        "sqrt": lambda a: f"sqrt({text(a)})",
        "exp": lambda a: f"exp({text(a)})",
        "logistic": lambda a: f"1.0 / (1.0 + exp(-{text(a)}))",
        "max": lambda a, b: f"max({text(a)}, {text(b)})",
        "min": lambda a, b: f"min({text(a)}, {text(b)})",
        "integer_pow": lambda a, n: f"{text(a)} ** {n}",
        "square": lambda a: f"{text(a)} * {text(a)}",
    }
    names = [f"p{i}" for i in range(N_INPUTS)] + [f"y{i}" for i in range(N_STATE)]
    outputs = replay(trace(reactor), names, ops, emit)
    source = "\n".join(
        [
            "def rhs(t, y, p):",
            f"    {', '.join(names[:N_INPUTS])}, = p",
            f"    {', '.join(names[N_INPUTS:])}, = y",
            *lines,
            f"    return [{', '.join(text(v) for v in outputs)}]",
        ]
    )
    space: dict[str, Any] = {"exp": math.exp, "sqrt": math.sqrt}
    exec(source, space)
    return space["rhs"]


def to_casadi(reactor: Reactor, inputs: Any, state: Any) -> list[Any]:
    """The field on CasADi symbols.

    Args:
        reactor: Cells and vessel.
        inputs: Symbols of the interval's constants.
        state: Symbols of ten amounts and the volume.

    Returns:
        Eleven expressions.
    """
    import casadi as ca

    ops: dict[str, Callable] = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
        "neg": lambda a: -a,
        "abs": ca.fabs,
        "sqrt": ca.sqrt,
        "exp": ca.exp,
        "logistic": lambda a: 1.0 / (1.0 + ca.exp(-a)),
        "max": ca.fmax,
        "min": ca.fmin,
        "integer_pow": lambda a, n: a**n,
        "square": lambda a: a * a,
    }
    values = [inputs[i] for i in range(N_INPUTS)] + [state[i] for i in range(N_STATE)]
    return replay(trace(reactor), values, ops, lambda v: v)
