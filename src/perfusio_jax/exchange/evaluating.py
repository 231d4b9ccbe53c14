"""Formulas as functions of JAX, and a mechanism that is made of them."""

import keyword
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from perfusio_jax.mechanistic import Mechanism, constant

from .formulas import Formula

_DONE: Final[Mapping[str, Callable[..., Array]]] = {
    "plus": lambda a, b: a + b,
    "minus": lambda a, b: a - b,
    "times": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "negative": lambda a: -a,
    "abs": jnp.abs,
    "exp": jnp.exp,
    "ln": jnp.log,
    "root": jnp.sqrt,
    "floor": jnp.floor,
    "ceiling": jnp.ceil,
    "max": jnp.maximum,
    "min": jnp.minimum,
    "lt": lambda a, b: a < b,
    "leq": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "geq": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "neq": lambda a, b: a != b,
    "and": jnp.logical_and,
    "or": jnp.logical_or,
    "xor": jnp.logical_xor,
    "not": jnp.logical_not,
    "piecewise": lambda value, condition, otherwise: jnp.where(condition, value, otherwise),
    **{name: getattr(jnp, name) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    **{
        f"arc{name}": getattr(jnp, f"arc{name}")
        for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")
    },
}


def computed(formulas: Mapping[str, Formula], values: Mapping[str, Array]) -> dict[str, Array]:
    """Numbers of formulas; traces, and differentiates in both directions.

    Args:
        formulas: By name.
        values: What the names in them stand for.
    """
    done: dict[int, Array] = {}

    def of(formula: Formula) -> Array:
        stack = [(formula, False)]
        while stack:
            node, is_ready = stack.pop()
            if id(node) in done:
                continue
            if node.op == "name":
                done[id(node)] = values[node.name]
            elif node.is_number:
                is_truth = isinstance(node.value, bool)
                done[id(node)] = jnp.asarray(node.value, bool if is_truth else float)
            elif is_ready:
                done[id(node)] = _operation(node, done)
            else:
                stack.append((node, True))
                stack += [(part, False) for part in node.parts]
        return done[id(formula)]

    return {name: of(formula) for name, formula in formulas.items()}


def _operation(node: Formula, done: Mapping[int, Array]) -> Array:
    parts = [done[id(p)] for p in node.parts]
    if node.op != "power":
        return _DONE[node.op](*parts)
    exponent = node.parts[1]
    # a whole power has a derivative everywhere, and the general one has none at zero
    if exponent.is_number and float(exponent.value).is_integer() and abs(exponent.value) < 64:
        return parts[0] ** int(exponent.value)
    return parts[0] ** parts[1]


class Known(NamedTuple):
    """A constant of a mechanism that is read."""

    name: str
    """Name in the formulas."""
    value: float
    unit: str
    log_sd: float | None = None
    """Prior standard deviation of its logarithm [-]."""
    sd: float | None = None
    """Prior standard deviation [its unit]."""


def field_name(name: str) -> str:
    """What a constant is called where it is a field of a class."""
    is_taken = keyword.iskeyword(name) or name.startswith("__") or hasattr(Mechanism, name)
    return f"{name}_" if is_taken else name


def formula_mechanism(
    name: str,
    constants: tuple[Known, ...],
    rates: Mapping[str, Formula],
    *,
    volume: str,
    source: str = "",
) -> Mechanism:
    """A mechanism whose rates are formulas.

    Args:
        name: What to call its class.
        constants: Its constants; each is a field of that name.
        rates: Volumetric rates by state. They name states, controls, constants and the volume.
        volume: Name of the volume in them.
        source: Where all this is from.

    Returns:
        The mechanism.
    """
    text = dict(rates)

    def of_state(
        self: Any, state: Mapping[str, Array], environment: Mapping[str, Array]
    ) -> Mapping[str, Array]:
        """Volumetric rates."""
        known = {c.name: getattr(self, field_name(c.name)) for c in constants}
        values = {**known, **environment, **state, volume: environment["volume_L"]}
        return computed(text, values)

    body: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": f"Rates of {name}, read from {source or 'formulas'}.",
        "__annotations__": {field_name(c.name): Array for c in constants},
        "rates": of_state,
    }
    for c in constants:
        body[field_name(c.name)] = constant(
            c.value, unit=c.unit, log_sd=c.log_sd, sd=c.sd, source=source
        )
    return type(field_name(name), (Mechanism,), body)()
