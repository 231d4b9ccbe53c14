"""What a run is worth or must keep, as people write it: names, statistics over time, prices.

An expression is arithmetic over statistics of quantities and controls of a culture:

    2.5 * formed(P) - 30 * used(feed)         formed(P) / cost()         highest(Lac, 4, 10)

| statistic | is |
| --- | --- |
| `P`, `final(P)` | the value at the end of a run (of a control, its mean) |
| `mean(P)`, `integral(P)` | mean over time; integral over days |
| `highest(P)`, `lowest(P)` | largest and smallest value at the end of a step |
| `formed(P)` | amount made: what is there at the end and what left, less start and what came in |
| `taken(P)` | amount that left with streams |
| `given(P)` | amount that came in with streams and boluses |
| `used(feed)` | litres that a stream brought |
| `cost()`, `days()` | price of the run by the table of costs; its length, turnaround included |

The first five take a stretch of the run: `mean(P, 3, 7)` is from day 3 to day 7. A step counts with
the mean of its two ends. Amounts are in the quantity's unit times L.
"""

import ast
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import HOURS_PER_DAY, Array, ConfigError, Float
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax.bed.goal.costs import Costs
from perfusio_jax.bed.goal.run_flows import given_in_steps, litres_in_steps, ways, ways_in
from perfusio_jax.hybrid.layout import Layout
from perfusio_jax.process import Process, bolus_amounts

OVER_TIME = ("final", "mean", "integral", "highest", "lowest")
"""Statistics of a quantity or a control over a stretch of a run."""
AMOUNTS = ("formed", "taken", "given")
"""Amounts of what is carried."""
FUNCTIONS = (*OVER_TIME, *AMOUNTS, "used", "cost", "days")
_SUMS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_DEEPEST = 24
_TINY = 1e-9


class RunForm(NamedTuple):
    """What an expression is about; hashable."""

    process: Process
    """The culture."""
    layout: Layout
    """What is forecast, and the control columns."""
    hours: tuple[float, ...]
    """Length of every step of a run [h]."""


class Expression(eqx.Module):
    """An expression as a criterion of a whole run; make it with `parse_expression`."""

    numbers: Float[Array, " c"]
    """Numbers that are written in it."""
    costs: Costs | None
    """Prices, where it asks for the cost."""
    tree: tuple[Any, ...] = eqx.field(static=True)
    """Its parts: (function, arguments), (sign, left, right), or the place of a number."""
    form: RunForm = eqx.field(static=True)
    """What it is about."""
    text: str = eqx.field(static=True)
    """As it was written."""
    direction: int = eqx.field(static=True)
    """+1 if more is better, -1 if less is."""
    target: Float[Array, ""] | None = None
    """Value it is to have; the criterion is then the distance from it."""
    start: Float[Array, " F"] | None = None
    """What is there when a run begins, as forecast; None: as at the end of the first step."""

    @property
    def label(self) -> str:
        """The expression, with the unit of a single statistic."""
        unit = _unit_of(self.tree, self.form)
        named = f"{self.text} [{unit}]" if unit else self.text
        return named if self.target is None else f"distance from target of {named}"

    def __call__(self, Y: Float[Array, "... H K"], u: Float[Array, "..."]) -> Float[Array, "..."]:
        """Value of each run.

        Args:
            Y: Forecast after every step.
            u: Set-points held, or of every step `(H,M)`.
        """
        H = len(self.form.hours)
        if Y.shape[-2] != H:
            raise ConfigError(
                f"{self.text} is of a run of {H} steps, and a trajectory of {Y.shape[-2]} was "
                "given; make the goal for the length of the step."
            )
        plan = jnp.broadcast_to(u, (H, u.shape[-1])) if u.ndim == 1 else u
        value = self._value(self.tree, Y, plan)
        value = jnp.broadcast_to(value, Y.shape[:-2])
        return value if self.target is None else jnp.sqrt((value - self.target) ** 2 + 1e-12)

    def _value(self, node: tuple[Any, ...], Y: Array, plan: Array) -> Array:
        kind, *parts = node
        if kind == "number":
            return self.numbers[parts[0]]
        if kind in ("+", "-", "*", "/"):
            left, right = (self._value(part, Y, plan) for part in parts)
            if kind == "+":
                return left + right
            if kind == "-":
                return left - right
            return left * right if kind == "*" else left / _away_from_zero(right)
        if kind == "days":
            length = sum(self.form.hours) / HOURS_PER_DAY
            more = 0.0 if self.costs is None else self.costs.turnaround_days
            return jnp.asarray(length) + more
        if kind == "cost":
            used = self._litres(Y, plan)
            days = sum(self.form.hours) / HOURS_PER_DAY
            if self.costs is None:
                raise ConfigError(f"{self.text} asks for the cost, and nothing has a price.")
            return self.costs.of_run(self.form.process, used, days, len(self.form.hours))
        if kind == "used":
            place = ways(self.form.process).index(parts[0])
            return jnp.sum(self._litres(Y, plan)[..., place], axis=-1)
        if kind in AMOUNTS:
            return self._amount(kind, parts[0], Y, plan)
        name, begin, end = parts
        return self._over_time(kind, (name, begin, end), Y, plan)

    def _over_time(
        self, kind: str, stretch: tuple[str, float, float], Y: Array, plan: Array
    ) -> Array:
        """A statistic over a stretch of the run."""
        name, begin, end = stretch
        ends = np.cumsum(self.form.hours) / HOURS_PER_DAY
        starts = ends - np.asarray(self.form.hours) / HOURS_PER_DAY
        inside = (ends > begin + _TINY) & (starts < end - _TINY)
        share = np.where(inside, np.minimum(ends, end) - np.maximum(starts, begin), 0.0)
        names = self.form.layout.forecast
        if name in names:
            at_ends = Y[..., names.index(name)]
            over = self._within(at_ends, name)
            last = at_ends[..., int(np.flatnonzero(inside)[-1])]
        else:
            at_ends = over = plan[:, self.form.process.control_names.index(name)]
            last = over @ jnp.asarray(share) / share.sum() if kind == "final" else over[-1]
        if kind == "final":
            return last
        if kind in ("highest", "lowest"):
            rows = at_ends[..., np.flatnonzero(inside)]
            return jnp.max(rows, axis=-1) if kind == "highest" else jnp.min(rows, axis=-1)
        total = over @ jnp.asarray(share)
        return total if kind == "integral" else total / share.sum()

    def _amount(self, kind: str, name: str, Y: Array, plan: Array) -> Array:
        """Amount formed, taken or given [unit of the quantity, L]."""
        process, names = self.form.process, self.form.layout.forecast
        level = Y[..., names.index(name)]
        litres = self._litres(Y, plan)
        came = left = jnp.zeros(())
        place = {c: i for i, c in enumerate(process.control_names)}
        for s, stream in enumerate(process.streams):
            flowed = litres[..., s]
            if stream.direction == "out":
                inside = self._within(level, name) * stream.passes.get(name, 1.0)
                left = left + jnp.sum(flowed * inside, axis=-1)
                continue
            brings = stream.carries.get(name, 0.0)
            content = plan[:, place[brings]] if isinstance(brings, str) else jnp.asarray(brings)
            if name in stream.adds:
                content = content + plan[:, place[stream.adds[name]]]
            came = came + jnp.sum(flowed * jnp.broadcast_to(content, flowed.shape), axis=-1)
        if process.boluses:
            row = jnp.asarray(bolus_amounts(process, [name])[0])
            came = came + jnp.sum(given_in_steps(self.form, plan) @ row)
        if kind != "formed":
            return left if kind == "taken" else came
        volume = self._volumes(litres)
        begin = level[..., 0] if self.start is None else self.start[names.index(name)]
        there = level[..., -1] * volume[..., -1] - begin * process.volume_L
        return there + left - came

    def _within(self, at_ends: Array, name: str) -> Array:
        """Means over the steps of a quantity that is known at their ends."""
        if self.start is None:
            first = at_ends[..., :1]
        else:
            value = self.start[self.form.layout.forecast.index(name)]
            first = jnp.broadcast_to(value, at_ends[..., :1].shape)
        return 0.5 * (at_ends + jnp.concatenate([first, at_ends[..., :-1]], axis=-1))

    def _litres(self, Y: Array, plan: Array) -> Array:
        """What flows by each stream within each step, `(..., H, streams)` [L]."""
        return litres_in_steps(self.form, Y, plan)

    def _volumes(self, litres: Array) -> Array:
        """Volume at the end of each step [L]."""
        process = self.form.process
        if process.is_constant_volume:
            return jnp.full(litres.shape[:-1], process.volume_L)
        enters = ways_in(process)
        signs = jnp.asarray([1.0 if name in enters else -1.0 for name in ways(process)])
        return process.volume_L + jnp.cumsum(litres @ signs, axis=-1)


def parse_expression(
    text: str,
    form: RunForm,
    *,
    direction: int = 1,
    target: float | None = None,
    costs: Costs | None = None,
    start: Any = None,
    what: str = "goal",
) -> Expression:
    """An expression in words as a criterion.

    Args:
        text: As `2.5 * formed(P) / cost()`.
        form: What it is about.
        direction: +1 if more is better, -1 if less is.
        target: Value it is to have, if it is to be held there.
        costs: Prices, for `cost()`.
        start: What is there when a run begins, as forecast.
        what: What messages call it.

    Raises:
        ConfigError: If it is no expression, or of something that is not forecast, set or carried.

    Example:
        >>> from perfusio_jax.hybrid.layout import layout_of
        >>> from perfusio_jax.process import MONOD_CHEMOSTAT as pond
        >>> form = RunForm(pond, layout_of(pond), (24.0,) * 3)
        >>> parse_expression("mean(P) - 2 * highest(S, 1)", form).label
        'mean(P) - 2 * highest(S, 1)'
        >>> parse_expression("formed(P)", form).label
        'formed(P) [g]'
    """
    form = form._replace(hours=tuple(float(hour) for hour in form.hours))
    try:
        body = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ConfigError(f"{what} {text[:80]!r} is no arithmetic. {_allowed()}") from None
    numbers: list[float] = []
    tree = _read(body, form, costs, numbers, (what, text), 0)
    return Expression(
        numbers=jnp.asarray(numbers, float),
        costs=costs if "cost" in _kinds(tree) or "days" in _kinds(tree) else None,
        tree=tree,
        form=form,
        text=" ".join(text.split()),
        direction=int(direction),
        target=None if target is None else jnp.asarray(target, float),
        start=None if start is None else jnp.asarray(start, float),
    )


def is_plain(text: str) -> bool:
    """Whether a text is a name and nothing else."""
    return text.strip().isidentifier()


def _read(
    node: ast.expr,
    form: RunForm,
    costs: Costs | None,
    numbers: list[float],
    said: tuple[str, str],
    depth: int,
) -> tuple[Any, ...]:
    """A part of the arithmetic, checked."""
    what, text = said
    if depth > _DEEPEST:
        raise ConfigError(f"{what} {text[:80]!r} is nested too deeply.")
    if isinstance(node, ast.Constant) and _is_number(node.value):
        value = float(node.value)  # pyright: ignore[reportArgumentType]
        if not np.isfinite(value):
            raise ConfigError(f"{what} {text!r}: {value} is not finite.")
        numbers.append(value)
        return ("number", len(numbers) - 1)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        numbers.append(-1.0)
        sign = ("number", len(numbers) - 1)
        return ("*", sign, _read(node.operand, form, costs, numbers, said, depth + 1))
    if isinstance(node, ast.BinOp) and type(node.op) in _SUMS:
        parts = (
            _read(part, form, costs, numbers, said, depth + 1) for part in (node.left, node.right)
        )
        return (_SUMS[type(node.op)], *parts)
    if isinstance(node, ast.Name):
        return _statistic(
            "mean" if _is_control(node.id, form) else "final", node.id, [], form, said
        )
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _called(node, form, costs, said)
    raise ConfigError(f"{what} {text!r} is not understood. {_allowed()}")


def _called(
    node: ast.Call, form: RunForm, costs: Costs | None, said: tuple[str, str]
) -> tuple[Any, ...]:
    """A function with its arguments, checked."""
    what, text = said
    name = node.func.id  # pyright: ignore[reportAttributeAccessIssue]
    if name not in FUNCTIONS:
        raise ConfigError(
            f"{what} {text!r}: there is no {name!r}{did_you_mean([name], FUNCTIONS)}; statistics "
            f"are {', '.join(FUNCTIONS)}."
        )
    if name in ("cost", "days"):
        if node.args:
            raise ConfigError(f"{what} {text!r}: {name}() is of the whole run and takes nothing.")
        if name == "cost" and costs is None:
            raise ConfigError(
                f"{what} {text!r} asks for the cost, and nothing has a price; --cost run=500 or a "
                "table [cost] says what things cost."
            )
        return (name,)
    if not node.args or not isinstance(node.args[0], ast.Name):
        raise ConfigError(f"{what} {text!r}: {name} is of a name, as in {name}(X).")
    of, more = node.args[0].id, node.args[1:]
    if name == "used":
        streams = ways_in(form.process)
        if of not in streams or more:
            raise ConfigError(
                f"{what} {text!r}: used is of a stream that enters, "
                f"{', '.join(streams) or 'of which there is none'}{did_you_mean([of], streams)}."
            )
        return (name, of)
    if name in AMOUNTS:
        carried = [n for n in form.layout.forecast if n in form.process.carried]
        if of not in carried or more:
            raise ConfigError(
                f"{what} {text!r}: {name} is of what is carried and forecast, "
                f"{', '.join(carried) or 'of which there is none'}{did_you_mean([of], carried)}."
            )
        return (name, of)
    days = []
    for part in more:
        value = part.value if isinstance(part, ast.Constant) else None
        if not _is_number(value):
            raise ConfigError(
                f"{what} {text!r}: days of a stretch are numbers, as {name}({of}, 3)."
            )
        days.append(float(value))  # pyright: ignore[reportArgumentType]
    return _statistic(name, of, days, form, said)


def _statistic(
    kind: str, of: str, days: list[float], form: RunForm, said: tuple[str, str]
) -> tuple[Any, ...]:
    what, text = said
    known = (*form.layout.forecast, *form.process.control_names)
    if of not in known:
        raise ConfigError(
            f"{what} {text!r}: {of!r} is not forecast{did_you_mean([of], known)}; of "
            f"{form.process.name} are {', '.join(form.layout.forecast)}, and set are "
            f"{', '.join(form.process.control_names) or 'no controls'}."
        )
    length = sum(form.hours) / HOURS_PER_DAY
    begin, end = [*days, *(0.0, length)[len(days) :]] if len(days) <= 2 else (0.0, 0.0)
    if not 0.0 <= begin < min(end, length + _TINY):
        raise ConfigError(
            f"{what} {text!r}: a stretch goes from one day to a later one, within the run of "
            f"{length:g} d."
        )
    return (kind, of, begin, min(end, length))


def _is_control(name: str, form: RunForm) -> bool:
    return name in form.process.control_names and name not in form.layout.forecast


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kinds(tree: tuple[Any, ...]) -> set[str]:
    found = {tree[0]}
    for part in tree[1:]:
        if isinstance(part, tuple):
            found |= _kinds(part)
    return found


def _unit_of(tree: tuple[Any, ...], form: RunForm) -> str:
    """Unit of a single statistic; empty for arithmetic."""
    kind, *rest = tree
    if kind == "used":
        return "L"
    if kind == "days":
        return "d"
    if kind not in (*OVER_TIME, *AMOUNTS):
        return ""
    process, name = form.process, rest[0]
    is_set = _is_control(name, form)
    unit = process.control(name).unit if is_set else process.quantity(name).unit
    if kind in AMOUNTS:
        return unit.removesuffix("/L") if unit.endswith("/L") else f"{unit} L"
    return f"{unit} d" if kind == "integral" else unit


def _away_from_zero(value: Array) -> Array:
    """A divisor that is no zero: what costs nothing is worth a great deal, not infinitely much."""
    size = jnp.maximum(jnp.abs(value), _TINY)
    return jnp.where(value < 0.0, -size, size)


def _allowed() -> str:
    return (
        "Allowed are numbers, names, + - * / with brackets, and "
        f"{', '.join(f'{name}(NAME)' for name in (*OVER_TIME, *AMOUNTS, 'used'))}, cost(), days()."
    )
