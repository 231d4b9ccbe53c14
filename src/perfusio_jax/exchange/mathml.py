"""Formulas as MathML by way of libSBML's syntax trees, and back."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

from perfusio_jax._core import ConfigError

from .formulas import Book, Formula, names_in, replaced

_TYPES: Final = {
    "plus": "AST_PLUS",
    "minus": "AST_MINUS",
    "negative": "AST_MINUS",
    "times": "AST_TIMES",
    "divide": "AST_DIVIDE",
    "power": "AST_POWER",
    "abs": "AST_FUNCTION_ABS",
    "exp": "AST_FUNCTION_EXP",
    "ln": "AST_FUNCTION_LN",
    "root": "AST_FUNCTION_ROOT",
    "floor": "AST_FUNCTION_FLOOR",
    "ceiling": "AST_FUNCTION_CEILING",
    "piecewise": "AST_FUNCTION_PIECEWISE",
    "max": "AST_FUNCTION_MAX",
    "min": "AST_FUNCTION_MIN",
    "lt": "AST_RELATIONAL_LT",
    "leq": "AST_RELATIONAL_LEQ",
    "gt": "AST_RELATIONAL_GT",
    "geq": "AST_RELATIONAL_GEQ",
    "eq": "AST_RELATIONAL_EQ",
    "neq": "AST_RELATIONAL_NEQ",
    "and": "AST_LOGICAL_AND",
    "or": "AST_LOGICAL_OR",
    "xor": "AST_LOGICAL_XOR",
    "not": "AST_LOGICAL_NOT",
    **{
        name: f"AST_FUNCTION_{name.upper()}"
        for trig in ("sin", "cos", "tan", "sinh", "cosh", "tanh")
        for name in (trig, f"arc{trig}")
    },
}
"""Type of libSBML for each operation."""


def to_tree(formula: Formula) -> Any:
    """A formula as a syntax tree of libSBML."""
    import libsbml

    if formula.op == "name":
        node = libsbml.ASTNode(libsbml.AST_NAME)
        node.setName(formula.name)
        return node
    if formula.is_number:
        if isinstance(formula.value, bool):
            known = libsbml.AST_CONSTANT_TRUE if formula.value else libsbml.AST_CONSTANT_FALSE
            return libsbml.ASTNode(known)
        node = libsbml.ASTNode()
        whole = formula.value == int(formula.value) if abs(formula.value) < 1e6 else False
        node.setValue(int(formula.value) if whole else float(formula.value))
        return node
    node = libsbml.ASTNode(getattr(libsbml, _TYPES[formula.op]))
    if formula.op == "root":  # its degree comes first
        two = libsbml.ASTNode()
        two.setValue(2)
        node.addChild(two)
    for part in formula.parts:
        node.addChild(to_tree(part))
    return node


def from_tree(node: Any, book: Book, where: str, time: str | None = None) -> Formula:
    """A syntax tree of libSBML as a formula.

    Args:
        node: The tree.
        book: Makes formulas.
        where: What it is of, for messages.
        time: Name of the time; without one a formula that speaks of it is refused.

    Raises:
        ConfigError: If it has an operation that has no counterpart here; it is named.
    """
    import libsbml

    kind = node.getType()

    def part(k: int) -> Formula:
        return from_tree(node.getChild(k), book, where, time)

    n = node.getNumChildren()
    if kind == libsbml.AST_NAME_TIME:
        if time is None:
            raise ConfigError(
                f"{where} speaks of the time; what cells do here depends on the state and on "
                "set-points alone. Make it an assignment that changes by events."
            )
        return book.name(time)
    if kind == libsbml.AST_NAME_AVOGADRO:
        return book.number(6.02214179e23)
    if kind == libsbml.AST_NAME:
        return book.name(node.getName())
    constants = {
        libsbml.AST_CONSTANT_PI: 3.141592653589793,
        libsbml.AST_CONSTANT_E: 2.718281828459045,
        libsbml.AST_CONSTANT_TRUE: True,
        libsbml.AST_CONSTANT_FALSE: False,
    }
    if kind in constants:
        return book.number(constants[kind])
    if node.isNumber():
        return book.number(node.getValue())
    if kind == libsbml.AST_FUNCTION_PIECEWISE:
        return _piecewise([part(k) for k in range(n)], book, where)
    if kind == libsbml.AST_FUNCTION_ROOT:
        degree, of = (book.number(2.0), part(0)) if n == 1 else (part(0), part(1))
        if degree.is_number and degree.value == 2.0:
            return book.apply("root", of)
        return book.apply("power", of, book.apply("divide", book.number(1.0), degree))
    if kind == libsbml.AST_FUNCTION_LOG:
        base, of = (book.number(10.0), part(0)) if n == 1 else (part(0), part(1))
        return book.apply("divide", book.apply("ln", of), book.apply("ln", base))
    if kind in (libsbml.AST_POWER, libsbml.AST_FUNCTION_POWER):
        return book.apply("power", part(0), part(1))
    if kind == libsbml.AST_MINUS and n == 1:
        return book.apply("negative", part(0))
    known = {getattr(libsbml, v): k for k, v in _TYPES.items() if k != "negative"}
    op = known.get(kind)
    if op is None:
        said = node.getName() or libsbml.formulaToL3String(node)
        raise ConfigError(
            f"{where} uses {said!r}, which has no counterpart here; powers, exponentials, "
            "logarithms, roots, minima, maxima, conditions and circular functions are taken."
        )
    if n == 0:  # an empty sum or product
        return book.number({"plus": 0.0, "times": 1.0, "and": True}.get(op, False))
    parts = [part(k) for k in range(n)]
    if n == 1 and op in ("plus", "times", "and", "or", "xor", "max", "min"):
        return parts[0]
    if n <= 2:
        return book.apply(op, *parts)
    if op in ("lt", "leq", "gt", "geq", "eq"):  # a < b < c
        links = [book.apply(op, a, b) for a, b in pairwise(parts)]
        return _chained("and", links, book)
    return _chained(op, parts, book)


def _chained(op: str, parts: list[Formula], book: Book) -> Formula:
    found = parts[0]
    for one in parts[1:]:
        found = book.apply(op, found, one)
    return found


def _piecewise(parts: list[Formula], book: Book, where: str) -> Formula:
    if len(parts) % 2 == 0:
        raise ConfigError(
            f"{where} has a piecewise without a value otherwise; it is undefined there."
        )
    found = parts[-1]
    for k in range(len(parts) - 3, -1, -2):
        found = book.apply("piecewise", parts[k], parts[k + 1], found)
    return found


def expanded(formula: Formula, rules: Mapping[str, Formula], book: Book) -> Formula:
    """A formula in which names that stand for others are written out, through all levels.

    Args:
        formula: The formula.
        rules: What names stand for.
        book: Makes formulas.

    Raises:
        ConfigError: If rules go round in a circle.
    """
    done: dict[str, Formula] = {}
    under_way: list[str] = []

    def of(name: str) -> Formula:
        if name in done:
            return done[name]
        if name in under_way:
            raise ConfigError(
                f"the rules of {', '.join([*under_way[under_way.index(name) :], name])} go round "
                "in a circle."
            )
        under_way.append(name)
        done[name] = put_in(rules[name])
        under_way.pop()
        return done[name]

    def put_in(body: Formula) -> Formula:
        own = {name: of(name) for name in sorted(names_in(body)) if name in rules}
        return replaced(book, body, own) if own else body

    return put_in(formula)
