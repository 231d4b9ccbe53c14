"""SBML as a described culture and its mechanism.

Taken are species, parameters and compartments that move by reactions or rate rules, assignments,
functions, starts, and events that set parameters at given times, which become controls. Everything
else is refused by name: what is read is to give the numbers that it gives elsewhere.

A model of ours holds the description of its culture, and comes back as that culture. Another
becomes a batch: nothing flows beside what its rates say.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.mechanistic import Mechanism
from perfusio_jax.process import Control, Process, Quantity, dimensions

from .evaluating import Known, formula_mechanism
from .formulas import Formula, names_in, replaced
from .mathml import expanded
from .rates import AGE, VESSEL, plain_name
from .sbml_content import Content, document_of, text_of
from .sbml_writing import require_libsbml

_LARGEST = 100.0
"""Top of an assumed range, over the largest value that is told."""


class ReadModel(NamedTuple):
    """What was read."""

    process: Process
    mechanism: Mechanism
    start: dict[str, float]
    """Concentrations and levels at the start, by name."""
    volume_L: float
    schedule: dict[str, list[tuple[float, float]]]
    """Controls that change: times [h] and values, from the start on."""
    is_ours: bool
    """Whether the culture is described in the file."""
    remarks: tuple[str, ...]
    """What was assumed or left out."""
    sample_L: float = 0.0
    """Volume that every sample takes [L]."""


def read_sbml(
    source: Path | str,
    *,
    controls: Sequence[str] = (),
    priors: Mapping[str, tuple[str, float]] | None = None,
) -> ReadModel:
    """Read a model.

    Args:
        source: A file, or the text of one.
        controls: Parameters that are set-points here rather than constants.
        priors: `log_sd` or `sd` and its value, by constant; of those that are not named nobody
            knows how uncertain they are.

    Raises:
        ConfigError: If libSBML is not installed.
        DataError: If it is no SBML, has something that cannot be taken (it is named), or lacks a
            parameter that is to be a set-point.
    """
    require_libsbml()
    text = text_of(source)
    where = str(source) if isinstance(source, Path) else "the model"
    try:
        return _Reader(Content(document_of(text, where)), where, controls, priors or {}).read()
    except ConfigError as error:
        raise DataError(f"{where}: {error}") from None


class _State(NamedTuple):
    """Something that moves."""

    name: str
    """Its name in formulas."""
    rate: Formula
    """Its rate, of what it is."""
    start: float
    unit: str | None


class _Reader:
    """Makes a culture of what a document holds."""

    def __init__(
        self,
        content: Content,
        where: str,
        controls: Sequence[str],
        priors: Mapping[str, tuple[str, float]],
    ) -> None:
        self.content, self.where = content, where
        self.book, self.rules = content.book, content.rules
        self.values, self.units = content.values, content.units
        self.moves, self.schedule = content.moves, content.schedule
        self.remarks = content.remarks
        self.wanted = tuple(controls)
        noted = tomllib.loads(content.noted("priors") or "")
        told = {n: next(iter(v.items())) for n, v in noted.items() if isinstance(v, dict) and v}
        self.priors = {**told, **priors}

    def read(self) -> ReadModel:
        """Put it together."""
        unknown = [c for c in self.wanted if c not in self.values or c in self.moves]
        if unknown:
            raise ConfigError(
                f"there is no parameter {', '.join(unknown)} that could be set; there are "
                f"{', '.join(n for n in self.values if n not in {*self.moves, *self.rules})}."
            )
        text = self.content.noted("process")
        return self._other() if text is None else self._ours(text)

    def _ours(self, text: str) -> ReadModel:
        process = self._with_feeds(Process.from_toml(text))
        states = (*process.carried, *process.levels)
        rates = {s: self.rules[f"rate_{s}"] for s in states if f"rate_{s}" in self.rules}
        own = {*states, *process.control_names, VESSEL, AGE}
        rules = {n: f for n, f in self.rules.items() if n not in own}
        whole = {s: expanded(f, rules, self.book) for s, f in rates.items()}
        start = {s: self.values.get(f"start_{s}", self.values.get(s, math.nan)) for s in states}
        schedule = {n: v for n, v in self.schedule.items() if n in process.control_names}
        for name in process.control_names:
            if name in self.values:
                schedule.setdefault(name, [(0.0, self.values[name])])
        volume = self.values.get("start_volume", self.values[VESSEL])
        constants = self._constants(whole, own)
        mechanism = formula_mechanism(
            "Read", constants, whole, volume=VESSEL, source=Path(self.where).name
        )
        taken = self.values.get("sample_volume", 0.0)
        remarks = tuple(self.remarks)
        return ReadModel(process, mechanism, start, volume, schedule, True, remarks, taken)

    def _with_feeds(self, process: Process) -> Process:
        """The culture with what enters as its parameters say now."""
        streams = []
        for stream in process.streams:
            carries = {
                name: self.values.get(plain_name(f"{stream.name}.{name}"), value)
                if isinstance(value, float | int)
                else value
                for name, value in stream.carries.items()
            }
            streams.append(stream.model_copy(update={"carries": carries}))
        return process.model_copy(update={"streams": tuple(streams)})

    def _constants(self, rates: Mapping[str, Formula], own: set[str]) -> tuple[Known, ...]:
        used = set().union(*(names_in(f) for f in rates.values()))
        found = []
        for name in self.values:
            if name not in used or name in own:
                continue
            kind, width = self.priors.get(name, ("", math.nan))
            found.append(
                Known(
                    name,
                    self._number(name),
                    self.units.get(name) or "1",
                    log_sd=width if kind == "log_sd" else None,
                    sd=width if kind == "sd" else None,
                )
            )
        return tuple(found)

    def _number(self, name: str) -> float:
        if not math.isfinite(self.values[name]):
            raise ConfigError(f"{name} has no value.")
        return self.values[name]

    def _other(self) -> ReadModel:
        vessels = self.content.vessels
        steered = [*dict.fromkeys((*self.wanted, *self.schedule))]
        states = self._states(vessels, steered)
        taken: dict[str, str] = {}
        for s in states:
            taken[s.name] = _culture_name(s.name, taken.values())
        controls = {n: _culture_name(n, [*taken.values()]) for n in steered}
        quantities = tuple(self._quantity(s, taken[s.name]) for s in states)
        process = Process(
            name=_culture_name(self.content.model.getId() or "model", [*taken.values()]),
            description=" ".join((self.content.model.getName() or "").split())[:200],
            volume_L=self._volume(vessels),
            quantities=quantities,
            controls=tuple(self._control(n, controls[n]) for n in steered),
        )
        rename = {n: self.book.name(to) for n, to in {**taken, **controls}.items() if n != to}
        rates = {}
        for s in states:
            rates[taken[s.name]] = replaced(self.book, s.rate, rename)
        constants = self._constants(rates, {*taken.values(), *controls.values()})
        mechanism = formula_mechanism(
            "Read", constants, rates, volume="no_volume", source=Path(self.where).name
        )
        self.remarks.append(
            "ranges and assay errors are assumed: a model tells none; look at them before use"
        )
        start = {taken[s.name]: s.start for s in states}
        schedule = {controls[n]: self.schedule.get(n, [(0.0, self.values[n])]) for n in steered}
        return ReadModel(
            process, mechanism, start, process.volume_L, schedule, False, tuple(self.remarks)
        )

    def _volume(self, vessels: Sequence[str]) -> float:
        """Volume of the culture [L]; a batch's rates do not depend on it."""
        if len(vessels) == 1:
            size = self.values[vessels[0]]
            unit = self.units.get(vessels[0])
            if unit is not None and dimensions(unit) == {"length": 3} and size > 0.0:
                from perfusio_jax._core.unit_text import parse_unit

                return float(parse_unit(unit).factor) * 1000.0 * size
            if size > 0.0:
                return size
        self.remarks.append("the volume of the culture is not told; 1 L is assumed")
        return 1.0

    def _states(self, vessels: Sequence[str], steered: Sequence[str]) -> list[_State]:
        """What moves, by rates that name states and constants.

        An amount whose concentration is an assignment counts as that concentration.
        """
        constant = {v for v in vessels if v not in self.moves and v not in self.rules}
        by_amount: dict[str, tuple[str, str]] = {}
        for name, rule in self.rules.items():
            if rule.op == "divide" and all(p.op == "name" for p in rule.parts):
                amount, vessel = (p.name for p in rule.parts)
                if amount in self.moves and vessel in constant:
                    by_amount.setdefault(amount, (name, vessel))
        kept = {shown for shown, _ in by_amount.values()}
        rules = {n: f for n, f in self.rules.items() if n not in {*kept, *steered}}
        for amount, (shown, vessel) in by_amount.items():
            of, size = self.book.name(shown), self.book.name(vessel)
            rules[amount] = self.book.apply("times", of, size)
        found = []
        for name, rate in self.moves.items():
            if name not in by_amount:
                start = self._number(name)
                whole = expanded(rate, rules, self.book)
                found.append(_State(name, whole, start, self.units.get(name)))
                continue
            shown, vessel = by_amount[name]
            per_litre = self.book.apply("divide", rate, self.book.name(vessel))
            start = self._number(name) / self.values[vessel]
            whole = expanded(per_litre, rules, self.book)
            found.append(_State(shown, whole, start, self.units.get(shown)))
        return found

    def _quantity(self, state: _State, name: str) -> Quantity:
        unit = state.unit or "1"
        powers = dimensions(unit)
        is_carried = powers.get("length") == -3 and len(powers) == 2
        top = _LARGEST * max(abs(state.start), 1.0)
        return Quantity(
            name=name,
            unit=unit,
            kind="carried" if is_carried else "level",
            lo=0.0 if is_carried else -top,
            hi=top,
            start=state.start,
        )

    def _control(self, name: str, culture_name: str) -> Control:
        values = [value for _, value in self.schedule.get(name, [(0.0, self._number(name))])]
        unit = self.units.get(name) or "1"
        lo, hi = min(values), max(values)
        return Control(
            name=culture_name,
            unit=unit,
            role="environment",
            lo=lo - max(abs(lo), 1.0),
            hi=hi + max(abs(hi), 1.0),
            default=values[0],
        )


def _culture_name(text: str, taken: Any) -> str:
    """A name that a culture may give, each once."""
    plain = plain_name(text)[:36]
    name, k = plain if plain != "rest" else "rest_", 1
    while name in set(taken):
        k += 1
        name = f"{plain}_{k}"
    return name
