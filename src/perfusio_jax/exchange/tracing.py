"""What a traced function computes, as formulas: any mechanism goes out, not only ours.

A function of JAX is traced to its list of primitive operations, and these are carried out on arrays
whose entries are formulas. What only moves entries about (stacking, slicing, broadcasting, indexing
by known numbers) is done by JAX itself, on the positions of the entries. A primitive that has no
counterpart is refused by its name.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from perfusio_jax._core import ConfigError

from .formulas import Book, Formula, is_truth

Entries = Any
"""An array of NumPy, of formulas (dtype object) or of known numbers."""

_MOST_TURNS = 64
"""Turns of a loop of known length that are written out."""

_SIMPLE: Final = {
    "add": "plus",
    "sub": "minus",
    "mul": "times",
    "div": "divide",
    "pow": "power",
    "neg": "negative",
    "abs": "abs",
    "exp": "exp",
    "log": "ln",
    "sqrt": "root",
    "floor": "floor",
    "ceil": "ceiling",
    "max": "max",
    "min": "min",
    "lt": "lt",
    "le": "leq",
    "gt": "gt",
    "ge": "geq",
    "eq": "eq",
    "ne": "neq",
    "and": "and",
    "or": "or",
    "xor": "xor",
    "not": "not",
    "add_any": "plus",
    **{name: name for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    **{f"a{name}": f"arc{name}" for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
}
"""Primitives that are one operation."""
_MOVES: Final = {
    "reshape": (0,),
    "broadcast_in_dim": (0,),
    "squeeze": (0,),
    "expand_dims": (0,),
    "slice": (0,),
    "transpose": (0,),
    "rev": (0,),
    "concatenate": None,
    "stack": None,
    "unstack": (0,),
    "gather": (0,),
    "dynamic_slice": (0,),
    "dynamic_update_slice": (0, 1),
    "scatter": (0, 2),
    "pad": (0, 1),
    "split": (0,),
    "tile": (0,),
}
"""Primitives that move entries about, and which of their arguments hold these; None for all."""
_AS_IT_IS: Final = ("copy", "copy_p", "stop_gradient", "optimization_barrier", "reduce_precision")
_INSIDE: Final = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
    "checkpoint": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
}
"""Primitives that hold a function, and the parameter it stands in."""
_FOLDED: Final = {
    "reduce_sum": ("plus", 0.0),
    "reduce_prod": ("times", 1.0),
    "reduce_max": ("max", -np.inf),
    "reduce_min": ("min", np.inf),
    "reduce_and": ("and", True),
    "reduce_or": ("or", False),
}


class Tracer:
    """Turns functions of JAX into formulas."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self._rules: dict[str, Callable[..., Any]] = {
            "integer_pow": self._integer_power,
            "square": lambda e, x: [self._each("power", x, self._number(2.0))],
            "rsqrt": lambda e, x: [self._each("divide", self._number(1.0), self._each("root", x))],
            "cbrt": lambda e, x: [self._each("power", x, self._number(1.0 / 3.0))],
            "exp2": lambda e, x: [self._each("power", self._number(2.0), x)],
            "log1p": lambda e, x: [self._each("ln", self._each("plus", self._number(1.0), x))],
            "expm1": lambda e, x: [self._each("minus", self._each("exp", x), self._number(1.0))],
            "logistic": self._logistic,
            "sign": self._sign,
            "clamp": lambda e, lo, x, hi: [self._each("min", self._each("max", lo, x), hi)],
            "select_n": self._select,
            "convert_element_type": self._convert,
            "dot_general": self._dot,
            "cumsum": self._cumulated,
            "cond": self._cond,
            "scan": self._scan,
        }
        # functions of JAX that guard against overflow; what they mean is shorter
        self._named: dict[str, Callable[..., Entries]] = {"hypot": self._hypotenuse}

    def formulas(self, function: Callable[..., Any], *given: Entries) -> list[Entries]:
        """What a function gives of formulas.

        Args:
            function: Of arrays; returns arrays in any tree.
            given: Arrays of formulas.

        Returns:
            Arrays of formulas, the leaves of the tree.

        Raises:
            ConfigError: If it uses a primitive without a counterpart, or a condition or an index
                that cannot be written down.
        """
        shapes = [jax.ShapeDtypeStruct(np.shape(v), np.float64) for v in given]
        traced = jax.make_jaxpr(function)(*shapes)
        return [self._as_formulas(v) for v in self.run(traced, [np.asarray(v) for v in given])]

    def run(self, closed: ClosedJaxpr, given: Sequence[Entries]) -> list[Entries]:
        """Carry a traced function out."""
        jaxpr = closed.jaxpr
        known: dict[Any, Entries] = {}
        known.update(zip(jaxpr.constvars, map(np.asarray, closed.consts), strict=True))
        known.update(zip(jaxpr.invars, given, strict=True))

        def read(atom: Any) -> Entries:
            return np.asarray(atom.val) if isinstance(atom, Literal) else known[atom]

        for equation in jaxpr.eqns:
            found = self._equation(equation, [read(a) for a in equation.invars])
            known.update(zip(equation.outvars, found, strict=True))
        return [read(a) for a in jaxpr.outvars]

    def _equation(self, equation: Any, given: list[Entries]) -> list[Entries]:
        name = equation.primitive.name
        if name in _AS_IT_IS:
            return given
        if equation.params.get("name") in self._named and any(v.dtype == object for v in given):
            return [self._named[equation.params["name"]](*given)]
        if name in _INSIDE:
            inner = equation.params[_INSIDE[name]]
            closed = inner if hasattr(inner, "consts") else ClosedJaxpr(inner, ())
            return self.run(closed, given)
        if all(v.dtype != object for v in given):
            return self._computed(equation, given)
        if name in _SIMPLE:
            return [self._each(_SIMPLE[name], *given)]
        if name in _MOVES:
            return self._moved(equation, given)
        if name in _FOLDED:
            return [self._folded(name, given[0], equation.params["axes"])]
        if name in self._rules:
            return self._rules[name](equation, *given)
        raise ConfigError(
            f"the mechanism uses {name!r}, which has no counterpart in MathML; write it with "
            "powers, exponentials, logarithms, roots, minima, maxima and conditions "
            "(jax.numpy.where)."
        )

    @staticmethod
    def _computed(equation: Any, given: list[Entries]) -> list[Entries]:
        found = equation.primitive.bind(*given, **equation.params)
        return [np.asarray(v) for v in (found if equation.primitive.multiple_results else [found])]

    def _number(self, value: Any) -> Entries:
        return self._as_formulas(np.asarray(value))

    def _as_formulas(self, values: Entries) -> Entries:
        if values.dtype == object:
            return values
        found = np.empty(values.shape, object)
        for at in np.ndindex(*values.shape):
            found[at] = self.book.number(values[at])
        return found

    def _each(self, op: str, *given: Entries) -> Entries:
        """An operation entry by entry."""
        parts: list[Entries] = [*np.broadcast_arrays(*(self._as_formulas(v) for v in given))]
        found = np.empty(parts[0].shape, object)
        for at in np.ndindex(*found.shape):
            found[at] = self.book.apply(op, *(p[at] for p in parts))
        return found

    def _moved(self, equation: Any, given: list[Entries]) -> list[Entries]:
        """Let JAX move positions, and look up what stands at each."""
        name = equation.primitive.name
        holds = range(len(given)) if _MOVES[name] is None else _MOVES[name]
        pool: list[Formula] = []
        arguments: list[Any] = []
        for i, value in enumerate(given):
            if i not in holds:
                if value.dtype == object:
                    raise ConfigError(
                        f"the mechanism takes an entry ({name}) whose place depends on the state; "
                        "only places that are known can be written down. Use jax.numpy.where."
                    )
                arguments.append(value)
                continue
            entries = self._as_formulas(value)
            places = len(pool) + np.arange(entries.size, dtype=float).reshape(entries.shape)
            pool += list(entries.reshape(-1))
            arguments.append(places)
        results = equation.primitive.bind(*arguments, **equation.params)
        results = results if equation.primitive.multiple_results else [results]
        return [self._looked_up(np.asarray(r), pool, name) for r in results]

    @staticmethod
    def _looked_up(places: np.ndarray, pool: list[Formula], name: str) -> Entries:
        if places.size and not (np.all(places >= 0) and np.all(places < len(pool))):
            raise ConfigError(f"the mechanism takes an entry ({name}) that is not there.")
        found = np.empty(places.shape, object)
        for at in np.ndindex(*places.shape):
            found[at] = pool[int(places[at])]
        return found

    def _folded(self, name: str, values: Entries, axes: Sequence[int]) -> Entries:
        op, empty = _FOLDED[name]
        values = self._as_formulas(values)
        kept = [k for k in range(values.ndim) if k not in axes]
        rows = np.transpose(values, (*kept, *axes)).reshape(
            *(values.shape[k] for k in kept), int(np.prod([values.shape[k] for k in axes]))
        )
        found = np.empty(rows.shape[:-1], object)
        for at in np.ndindex(*found.shape):
            found[at] = self._sum(op, list(rows[at]), empty)
        return found

    def _sum(self, op: str, parts: list[Formula], empty: Any) -> Formula:
        if not parts:
            return self.book.number(empty)
        whole = parts[0]
        for part in parts[1:]:
            whole = self.book.apply(op, whole, part)
        return whole

    def _integer_power(self, equation: Any, x: Entries) -> list[Entries]:
        return [self._each("power", x, self._number(float(equation.params["y"])))]

    def _logistic(self, equation: Any, x: Entries) -> list[Entries]:
        one = self._number(1.0)
        down = self._each("exp", self._each("negative", x))
        return [self._each("divide", one, self._each("plus", one, down))]

    def _hypotenuse(self, a: Entries, b: Entries) -> Entries:
        squares = (self._each("times", v, v) for v in (a, b))
        return self._each("root", self._each("plus", *squares))

    def _sign(self, equation: Any, x: Entries) -> list[Entries]:
        zero, one = self._number(0.0), self._number(1.0)
        below = self._each("piecewise", self._number(-1.0), self._each("lt", x, zero), zero)
        return [self._each("piecewise", one, self._each("gt", x, zero), below)]

    def _select(self, equation: Any, which: Entries, *cases: Entries) -> list[Entries]:
        if len(cases) != 2:
            raise ConfigError(
                f"the mechanism chooses among {len(cases)} cases by a number; choose between two "
                "at a time, by conditions."
            )
        return [self._each("piecewise", cases[1], which, cases[0])]

    def _convert(self, equation: Any, x: Entries) -> list[Entries]:
        kind = np.dtype(equation.params["new_dtype"]).kind
        found = np.empty(x.shape, object)
        for at in np.ndindex(*x.shape):
            entry = x[at]
            if is_truth(entry) and kind != "b":
                one, zero = self.book.number(1.0), self.book.number(0.0)
                found[at] = self.book.apply("piecewise", one, entry, zero)
            elif not is_truth(entry) and kind == "b":
                found[at] = self.book.apply("neq", entry, self.book.number(0.0))
            elif kind in "iu" and not is_truth(entry):
                raise ConfigError(
                    "the mechanism turns a number that depends on the state into an integer; that "
                    "has no counterpart."
                )
            else:
                found[at] = entry
        return [found]

    def _dot(self, equation: Any, a: Entries, b: Entries) -> list[Entries]:
        (sum_a, sum_b), (batch_a, batch_b) = equation.params["dimension_numbers"]
        a, b = self._as_formulas(a), self._as_formulas(b)
        free_a = [k for k in range(a.ndim) if k not in (*sum_a, *batch_a)]
        free_b = [k for k in range(b.ndim) if k not in (*sum_b, *batch_b)]
        batch = tuple(a.shape[k] for k in batch_a)
        wide_a, wide_b = (tuple(v.shape[k] for k in free) for v, free in ((a, free_a), (b, free_b)))
        n = int(np.prod([a.shape[k] for k in sum_a]))
        rows = np.transpose(a, (*batch_a, *free_a, *sum_a)).reshape(*batch, *wide_a, n)
        columns = np.transpose(b, (*batch_b, *free_b, *sum_b)).reshape(*batch, *wide_b, n)
        found = np.empty((*batch, *wide_a, *wide_b), object)
        for at in np.ndindex(*found.shape):
            lead, rest = at[: len(batch)], at[len(batch) :]
            left = rows[(*lead, *rest[: len(wide_a)])]
            right = columns[(*lead, *rest[len(wide_a) :])]
            products = [self.book.apply("times", x, y) for x, y in zip(left, right, strict=True)]
            found[at] = self._sum("plus", products, 0.0)
        return [found]

    def _cumulated(self, equation: Any, x: Entries) -> list[Entries]:
        x = np.moveaxis(self._as_formulas(x), equation.params["axis"], 0)
        x = x[::-1] if equation.params["reverse"] else x
        rows = [_row(x, 0)]
        for k in range(1, len(x)):
            rows.append(self._each("plus", rows[-1], _row(x, k)))
        found = np.stack(rows[::-1] if equation.params["reverse"] else rows)
        return [np.moveaxis(found, 0, equation.params["axis"])]

    def _cond(self, equation: Any, which: Entries, *given: Entries) -> list[Entries]:
        branches = equation.params["branches"]
        if which.dtype != object:
            chosen = int(np.clip(which, 0, len(branches) - 1))
            return self.run(branches[chosen], given)
        if len(branches) != 2:
            raise ConfigError(
                f"the mechanism switches between {len(branches)} branches by the state; two can "
                "be written down (jax.lax.cond)."
            )
        # what decides is a truth that was turned into a number
        no, yes = (self.run(branch, given) for branch in branches)
        entry = which[()]
        if not is_truth(entry):
            entry = self.book.apply("gt", entry, self.book.number(0.0))
        truth = np.empty((), object)
        truth[()] = entry
        return [self._each("piecewise", y, truth, n) for y, n in zip(yes, no, strict=True)]

    def _scan(self, equation: Any, *given: Entries) -> list[Entries]:
        told = equation.params
        length, n_consts, n_carry = told["length"], told["num_consts"], told["num_carry"]
        if length > _MOST_TURNS:
            raise ConfigError(
                f"the mechanism has a loop of {length} turns; up to {_MOST_TURNS} are written out."
            )
        fixed = list(given[:n_consts])
        carry = list(given[n_consts : n_consts + n_carry])
        along = list(given[n_consts + n_carry :])
        rows: list[list[Entries]] = []
        turns = range(length)[::-1] if told["reverse"] else range(length)
        for k in turns:
            found = self.run(told["jaxpr"], [*fixed, *carry, *(_row(v, k) for v in along)])
            carry = found[:n_carry]
            rows.append(found[n_carry:])
        rows = rows[::-1] if told["reverse"] else rows
        stacked = [
            np.stack([self._as_formulas(v) for v in column]) for column in zip(*rows, strict=True)
        ]
        return [*carry, *stacked]


def _row(values: Entries, k: int) -> Entries:
    """A row as an array, of one dimension too."""
    return values[k : k + 1].reshape(values.shape[1:])
