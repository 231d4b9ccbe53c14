"""Arithmetic over names as a graph: what lies between a traced function and another's notation.

A formula is a number, a name or an operation on formulas. Equal ones are the same object, so that
what a function computes once is written once. Operations have the names that MathML gives them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

Truth = bool
Value = float | Truth

_BINARY: Final[Mapping[str, Callable[..., Any]]] = {
    "plus": lambda a, b: a + b,
    "minus": lambda a, b: a - b,
    "times": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "power": lambda a, b: float(np.power(a, b)),
    "lt": lambda a, b: a < b,
    "leq": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "geq": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "neq": lambda a, b: a != b,
    "and": lambda a, b: bool(a) and bool(b),
    "or": lambda a, b: bool(a) or bool(b),
    "xor": lambda a, b: bool(a) != bool(b),
    "max": max,
    "min": min,
}
_UNARY: Final[Mapping[str, Callable[..., Any]]] = {
    "negative": lambda a: -a,
    "not": lambda a: not a,
    "abs": abs,
    "exp": lambda a: float(np.exp(a)),
    "ln": lambda a: float(np.log(a)),
    "root": lambda a: float(np.sqrt(a)),
    "floor": lambda a: float(np.floor(a)),
    "ceiling": lambda a: float(np.ceil(a)),
    **{
        name: (lambda f: lambda a: float(f(a)))(getattr(np, name))
        for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")
    },
    **{
        "arc" + name: (lambda f: lambda a: float(f(a)))(getattr(np, "arc" + name))
        for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")
    },
}
RELATIONS: Final = ("lt", "leq", "gt", "geq", "eq", "neq")
"""Operations on numbers that give a truth."""
OPERATIONS: Final = (*_UNARY, *_BINARY, "piecewise")
"""Everything that a formula may be made of."""


class Formula:
    """A number, a name or an operation; made by a `Book` and compared by identity."""

    __slots__ = ("name", "op", "parts", "value")

    def __init__(
        self, op: str, parts: tuple["Formula", ...] = (), *, name: str = "", value: Value = 0.0
    ) -> None:
        self.op = op
        """`number`, `name`, or one of `OPERATIONS`."""
        self.parts = parts
        """What it is of; of `piecewise` a value, its condition, and the value otherwise."""
        self.name = name
        """The name, of a name."""
        self.value = value
        """The number or truth, of a number."""

    @property
    def is_number(self) -> bool:
        """Whether it is a number or a truth."""
        return self.op == "number"

    def __repr__(self) -> str:
        if self.op == "number":
            return f"{self.value!r}"
        if self.op == "name":
            return self.name
        return f"{self.op}({', '.join(map(repr, self.parts))})"


class Book:
    """Makes formulas; equal ones once. What is known is computed, what does nothing left out."""

    def __init__(self) -> None:
        self._known: dict[tuple, Formula] = {}

    def _one(self, key: tuple, make: Callable[[], Formula]) -> Formula:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def number(self, value: Any) -> Formula:
        """A number or a truth."""
        known = bool(value) if isinstance(value, bool | np.bool_) else float(value)
        # -0.0 equals 0.0 and is another number; a NaN equals nothing
        key = ("number", type(known), repr(known))
        return self._one(key, lambda: Formula("number", value=known))

    def name(self, name: str) -> Formula:
        """A name."""
        return self._one(("name", name), lambda: Formula("name", name=name))

    def apply(self, op: str, *parts: Formula) -> Formula:
        """An operation.

        Args:
            op: One of `OPERATIONS`.
            parts: What it is of.
        """
        if op != "piecewise" and all(p.is_number for p in parts):
            table = _UNARY if len(parts) == 1 else _BINARY
            if op in table and not _is_undefined(op, parts):
                with np.errstate(all="ignore"):
                    return self.number(table[op](*(p.value for p in parts)))
        short = self._shorter(op, parts)
        if short is not None:
            return short
        key = (op, *(id(p) for p in parts))
        return self._one(key, lambda: Formula(op, parts))

    def _shorter(self, op: str, parts: tuple[Formula, ...]) -> Formula | None:
        """The same with less of it, where a part is a number that does nothing."""
        if op == "piecewise":
            value, condition, otherwise = parts
            if condition.is_number:
                return value if condition.value else otherwise
            return value if value is otherwise else None
        if op == "not" and parts[0].op == "not":
            return parts[0].parts[0]
        if op == "negative" and parts[0].op == "negative":
            return parts[0].parts[0]
        if op in ("and", "or", "xor"):
            return _shorter_truth(op, parts, self)
        if len(parts) != 2:
            return None
        a, b = parts
        zero_a, zero_b = (p.is_number and p.value == 0.0 for p in parts)
        one_a, one_b = (p.is_number and p.value == 1.0 for p in parts)
        if op == "plus" and (zero_a or zero_b):
            return b if zero_a else a
        if op == "minus" and zero_b:
            return a
        if op == "minus" and zero_a:
            return self.apply("negative", b)
        if op == "times" and (zero_a or zero_b):
            return self.number(0.0)
        if op == "times" and (one_a or one_b):
            return b if one_a else a
        if op == "divide" and one_b:
            return a
        if op == "divide" and zero_a:
            return self.number(0.0)
        if op == "power" and one_b:
            return a
        return None


def _is_undefined(op: str, parts: tuple[Formula, ...]) -> bool:
    return op == "divide" and float(parts[1].value) == 0.0


def _shorter_truth(op: str, parts: tuple[Formula, ...], book: Book) -> Formula | None:
    known = [p for p in parts if p.is_number]
    if not known:
        return parts[0] if parts[0] is parts[1] and op != "xor" else None
    other = parts[1] if known[0] is parts[0] else parts[0]
    truth = bool(known[0].value)
    if op == "xor":
        return book.apply("not", other) if truth else other
    if (op == "and") == truth:
        return other
    return book.number(truth)


def is_truth(formula: Formula) -> bool:
    """Whether a formula is true or false rather than a number."""
    if formula.is_number:
        return isinstance(formula.value, bool)
    if formula.op == "piecewise":
        return is_truth(formula.parts[0])
    return formula.op in (*RELATIONS, "and", "or", "xor", "not")


class Written(NamedTuple):
    """Formulas in an order in which each names only what stands before it."""

    helpers: tuple[tuple[str, Formula], ...]
    """What is used in several places, by a name of its own."""
    formulas: dict[str, Formula]
    """What was asked for, by name; may name helpers and each other."""


def written(book: Book, wanted: Mapping[str, Formula], taken: Sequence[str] = ()) -> Written:
    """Formulas with what they share written once.

    Args:
        book: That made them.
        wanted: By name. One that is part of another is referred to by its name.
        taken: Names that a helper may not have.

    Returns:
        The same as short formulas.
    """
    uses: dict[int, int] = {}
    order: list[Formula] = []

    def visit(formula: Formula) -> None:
        # a loop of its own: what is traced may be deeper than the interpreter's stack
        stack = [(formula, False)]
        while stack:
            node, is_done = stack.pop()
            if is_done:
                order.append(node)
                continue
            uses[id(node)] = uses.get(id(node), 0) + 1
            if uses[id(node)] > 1 or not node.parts:
                continue
            stack.append((node, True))
            stack += [(p, False) for p in reversed(node.parts)]

    for formula in wanted.values():
        visit(formula)
    named: dict[int, str] = {}
    for name, formula in wanted.items():
        if formula.parts:
            named.setdefault(id(formula), name)
    short: dict[int, Formula] = {}
    helpers: list[tuple[str, Formula]] = []
    used = {*taken, *wanted}
    count = 0

    def shortened(node: Formula) -> Formula:
        if not node.parts:
            return node
        return short[id(node)]

    bodies: dict[int, Formula] = {}
    for node in order:
        body = book.apply(node.op, *(shortened(p) for p in node.parts))
        bodies[id(node)] = body
        if id(node) in named:
            short[id(node)] = book.name(named[id(node)])
        elif uses[id(node)] > 1 and not is_truth(node):
            count += 1
            while (name := f"v{count}") in used:
                count += 1
            used.add(name)
            helpers.append((name, body))
            short[id(node)] = book.name(name)
        else:
            short[id(node)] = body
    found = {}
    for name, formula in wanted.items():
        if not formula.parts:
            found[name] = formula
        elif named[id(formula)] == name:
            found[name] = bodies[id(formula)]
        else:  # two names of one thing
            found[name] = book.name(named[id(formula)])
    return Written(tuple(helpers), found)


def names_in(formula: Formula) -> set[str]:
    """Names that a formula speaks of."""
    found: set[str] = set()
    seen: set[int] = set()
    stack = [formula]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.op == "name":
            found.add(node.name)
        stack += node.parts
    return found


def replaced(book: Book, formula: Formula, by: Mapping[str, Formula]) -> Formula:
    """A formula with names replaced.

    Args:
        book: Makes the new one.
        formula: The old one.
        by: What stands for a name.
    """
    done: dict[int, Formula] = {}
    stack = [(formula, False)]
    while stack:
        node, is_ready = stack.pop()
        if id(node) in done:
            continue
        if not node.parts:
            done[id(node)] = by.get(node.name, node) if node.op == "name" else node
        elif is_ready:
            done[id(node)] = book.apply(node.op, *(done[id(p)] for p in node.parts))
        else:
            stack.append((node, True))
            stack += [(p, False) for p in node.parts]
    return done[id(formula)]


def value_of(formula: Formula, values: Mapping[str, float]) -> float:
    """The number a formula has where its names have numbers; NaN where it has none.

    Args:
        formula: The formula.
        values: Numbers by name.
    """
    book = Book()
    known = {name: book.number(value) for name, value in values.items()}
    found = replaced(book, formula, known)
    return float(found.value) if found.is_number else math.nan
