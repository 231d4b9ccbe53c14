"""A run as SBML (level 3 version 2), by libSBML.

A species is the amount of what is carried, with a rate rule; its concentration has the name that
the culture gives it, by an assignment. What the mechanism makes (`rate_X`), what flows (`flow_S`)
and what can be read stand as assignments of their own. Set-points, boluses and samples are events
at the beginnings of intervals: at `begins_k` a control goes to `control_at_k`.

An event acts right after its time, so that what is read at that time is what a sample there reads:
before the bolus. A bolus at the very start is part of where the run starts.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

import numpy as np
import tomli_w

from perfusio_jax._core import ConfigError

from .formulas import Formula
from .mathml import to_tree
from .rates import VESSEL, RateModel, Steered, plain_name
from .sbml_units import SBMLUnits

NAMESPACE: Final = "https://perfusio-jax.org/sbml"
"""Namespace of the annotations: the description of a culture, and how uncertain constants are."""
START_VOLUME: Final = "start_volume"
"""Name of the volume at the start, before anything is given."""
_WARNING: Final = 1


def require_libsbml() -> None:
    """Refuse to go on without libSBML.

    Raises:
        ConfigError: If it is not installed.
    """
    if find_spec("libsbml") is None:
        raise ConfigError(
            "SBML is read and written by python-libsbml, which is not installed: "
            "pip install 'perfusio-jax[exchange]'."
        )


def sbml_text(model: RateModel) -> str:
    """A run as SBML.

    Args:
        model: The run; see `rate_model`.

    Returns:
        The document.

    Raises:
        ConfigError: If libSBML is not installed, or finds what it was given wrong.
    """
    require_libsbml()
    import libsbml

    document = libsbml.SBMLDocument(3, 2)
    made = document.createModel()
    made.setId(plain_name(model.name))
    made.setName(model.name)
    writer = _Writer(made, model)
    writer.write()
    text = libsbml.writeSBMLToString(document)
    _check(libsbml.readSBMLFromString(text))
    return text


def write_sbml(model: RateModel, path: Path) -> None:
    """Write a run as SBML; see `sbml_text`.

    Args:
        model: The run.
        path: File; folders above it are made.
    """
    text = sbml_text(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _check(document: Any) -> None:
    """Let libSBML look; units of numbers in formulas are nobody's, so those are not looked at."""
    import libsbml

    document.setConsistencyChecks(libsbml.LIBSBML_CAT_UNITS_CONSISTENCY, False)
    document.setConsistencyChecks(libsbml.LIBSBML_CAT_MODELING_PRACTICE, False)
    document.checkConsistency()
    log = document.getErrorLog()
    wrong = [
        log.getError(k).getMessage().strip()
        for k in range(log.getNumErrors())
        if log.getError(k).getSeverity() > _WARNING
    ]
    if wrong:
        raise ConfigError(f"libSBML finds the model wrong: {' '.join(wrong[0].split())}")


class _Writer:
    """Fills a model of libSBML."""

    def __init__(self, made: Any, model: RateModel) -> None:
        self.made, self.model = made, model
        self.units = SBMLUnits(made)
        self.book = model.book

    def write(self) -> None:
        """Write everything."""
        made, model = self.made, self.model
        made.setTimeUnits(self.units("h"))
        made.setVolumeUnits(self.units("L"))
        made.setExtentUnits(self.units("mmol"))
        made.setSubstanceUnits(self.units("mmol"))
        moves = model.is_moving or bool(np.any(model.bolus_L != 0.0)) or model.sample_L > 0.0
        vessel = made.createCompartment()
        vessel.setId(VESSEL)
        vessel.setName("culture volume")
        vessel.setSpatialDimensions(3)
        vessel.setUnits(self.units("L"))
        vessel.setConstant(not moves)
        vessel.setSize(model.volume_L)
        self._parameter(START_VOLUME, "L", model.volume_L, label="volume at the start")
        for constant in model.constants:
            self._parameter(constant.name, constant.unit, constant.value, label=constant.lever)
        self._controls()
        self._states()
        self._rules(moves)
        self._events()
        self._notes()

    def _parameter(
        self,
        name: str,
        unit: str | None,
        value: float | None = None,
        *,
        label: str = "",
        is_constant: bool = True,
    ) -> None:
        made = self.made.createParameter()
        made.setId(name)
        if label and label != name:
            made.setName(label)
        if value is not None:
            made.setValue(float(value))
        units = None if unit is None else self.units(unit)
        if units is not None:
            made.setUnits(units)
        made.setConstant(is_constant)

    def _assign(self, name: str, formula: Formula) -> None:
        rule = self.made.createAssignmentRule()
        rule.setVariable(name)
        rule.setMath(to_tree(formula))

    def _assigned(self, name: str, unit: str | None, formula: Formula, *, label: str = "") -> None:
        self._parameter(name, unit, label=label, is_constant=False)
        self._assign(name, formula)

    def _start(self, name: str, formula: Formula) -> None:
        begun = self.made.createInitialAssignment()
        begun.setSymbol(name)
        begun.setMath(to_tree(formula))

    def _controls(self) -> None:
        for control in self.model.steered:
            if control.is_constant:
                self._parameter(control.name, control.unit, control.values[0])
                continue
            for k, value in enumerate(control.values):
                self._parameter(at_interval(control.name, k), control.unit, value)
            self._parameter(control.name, control.unit, is_constant=False)
            self._start(control.name, self.book.name(at_interval(control.name, 0)))
        if self._has_events():
            for k in range(1, len(self.model.hours) - 1):
                self._parameter(begins(k), "h", self.model.hours[k])
        if self.model.sample_L > 0.0:
            self._parameter("sample_volume", "L", self.model.sample_L)

    def _states(self) -> None:
        model, book = self.model, self.book
        for k, held in enumerate(model.held):
            self._parameter(f"start_{held.name}", held.unit, held.start, label=f"start.{held.name}")
            start = book.name(f"start_{held.name}")
            if not held.is_carried:
                self._parameter(held.name, held.unit, is_constant=False)
                self._start(held.name, start)
                continue
            species = self.made.createSpecies()
            species.setId(amount_of(held.name))
            species.setName(f"amount of {held.name}")
            species.setCompartment(VESSEL)
            species.setHasOnlySubstanceUnits(True)
            species.setBoundaryCondition(False)
            species.setConstant(False)
            units = self.units(amount_unit(held.unit))
            if units is not None:
                species.setSubstanceUnits(units)
            amount = book.apply("times", start, book.name(START_VOLUME))
            for control in self._giving(0):
                each = book.number(model.bolus[k, self._place(control)])
                amount = book.apply(
                    "plus", amount, book.apply("times", each, self._now(control, 0))
                )
            self._start(amount_of(held.name), amount)
            concentration = book.apply("divide", book.name(amount_of(held.name)), book.name(VESSEL))
            self._assigned(held.name, held.unit, concentration)
        volume = book.name(START_VOLUME)
        for control in self._giving(0):
            each = book.number(model.bolus_L[self._place(control)])
            volume = book.apply("plus", volume, book.apply("times", each, self._now(control, 0)))
        self._start(VESSEL, volume)

    def _rules(self, moves: bool) -> None:
        model, book = self.model, self.book
        for name, formula in model.text.helpers:
            self._assigned(name, None, formula)
        carried = {h.name: h.is_carried for h in model.held}
        units = {h.name: h.unit for h in model.held}
        shown = {s.name: s for s in model.shown}
        for name, formula in model.text.formulas.items():
            kind, _, of = name.partition("_")
            if kind == "slope" and of in carried:
                rule = self.made.createRateRule()
                rule.setVariable(amount_of(of) if carried[of] else of)
                is_whole = model.process is not None or not carried[of]
                slope = formula if is_whole else book.apply("times", book.name(VESSEL), formula)
                rule.setMath(to_tree(slope))
            elif name == "swelling":
                if model.is_moving and moves:
                    rule = self.made.createRateRule()
                    rule.setVariable(VESSEL)
                    rule.setMath(to_tree(formula))
            elif name in shown:
                self._assigned(name, shown[name].unit, formula, label=shown[name].column)
            elif kind == "rate" and of in units:
                self._assigned(name, f"{units[of]}/h", formula, label=f"what cells make of {of}")
            else:
                self._assigned(name, "L/h", formula, label=name.replace("_", " ", 1))

    def _place(self, control: Steered) -> int:
        return self.model.steered.index(control)

    def _giving(self, interval: int) -> list[Steered]:
        """Controls that give a bolus at the start of an interval."""
        model = self.model
        return [
            c
            for j, c in enumerate(model.steered)
            if (np.any(model.bolus[:, j] != 0.0) or model.bolus_L[j] != 0.0)
            and (not c.is_constant or c.values[interval] != 0.0)
        ]

    def _now(self, control: Steered, interval: int) -> Formula:
        name = control.name if control.is_constant else at_interval(control.name, interval)
        return self.book.name(name)

    def _has_events(self) -> bool:
        return self.model.has_jumps or any(not c.is_constant for c in self.model.steered)

    def _events(self) -> None:
        if not self._has_events():
            return
        import libsbml

        model, book = self.model, self.book
        for k in range(1, len(model.hours) - 1):
            event = self.made.createEvent()
            event.setId(f"interval_{k + 1}")
            event.setUseValuesFromTriggerTime(True)
            trigger = event.createTrigger()
            trigger.setInitialValue(False)
            trigger.setPersistent(True)
            late = libsbml.ASTNode(libsbml.AST_RELATIONAL_GT)
            time = libsbml.ASTNode(libsbml.AST_NAME_TIME)
            time.setName("time")
            late.addChild(time)
            late.addChild(to_tree(book.name(begins(k))))
            trigger.setMath(late)
            sets: dict[str, Formula] = {}
            for control in model.steered:
                if not control.is_constant:
                    sets[control.name] = self._now(control, k)
            sets |= self._jump(k)
            for name, formula in sets.items():
                assignment = event.createEventAssignment()
                assignment.setVariable(name)
                assignment.setMath(to_tree(formula))

    def _jump(self, interval: int) -> dict[str, Formula]:
        """What a sample takes and boluses bring at the start of an interval."""
        model, book = self.model, self.book
        giving = self._giving(interval)
        if not giving and not model.sample_L:
            return {}
        volume, left = book.name(VESSEL), book.name(VESSEL)
        if model.sample_L:
            left = book.apply("minus", volume, book.name("sample_volume"))
        found: dict[str, Formula] = {}
        for k, held in enumerate(model.held):
            own = book.name(amount_of(held.name) if held.is_carried else held.name)
            now = own
            if model.sample_L and held.is_carried:
                now = book.apply("divide", book.apply("times", own, left), volume)
            for control in giving:
                each = book.number(model.bolus[k, self._place(control)])
                now = book.apply(
                    "plus", now, book.apply("times", each, self._now(control, interval))
                )
            if now is not own:
                found[own.name] = now
        for control in giving:
            each = book.number(model.bolus_L[self._place(control)])
            left = book.apply("plus", left, book.apply("times", each, self._now(control, interval)))
        if left is not volume:
            found[VESSEL] = left
        return found

    def _notes(self) -> None:
        left = [f"{unit} ({why})" for unit, why in self.units.left_out.items()]
        said = "Made by perfusio-jax. Time in hours, volume in litres."
        if left:
            said += f" Units that are not declared: {'; '.join(left)}."
        self.made.setNotes(
            f'<body xmlns="http://www.w3.org/1999/xhtml"><p>{escape(said)}</p></body>'
        )
        parts = []
        if self._keeps_names():
            parts.append(("process", self.model.process.to_toml()))  # pyright: ignore
        told = {
            c.name: {k: getattr(c, k) for k in ("log_sd", "sd") if getattr(c, k) is not None}
            for c in self.model.constants
        }
        parts.append(("priors", tomli_w.dumps({k: v for k, v in told.items() if v})))
        inner = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in parts if text)
        if inner:  # one element for each namespace is allowed
            whole = f'<culture xmlns="{NAMESPACE}">{inner}</culture>'
            self.made.setAnnotation(f"<annotation>{whole}</annotation>")

    def _keeps_names(self) -> bool:
        """Whether states and controls have the names that the culture gives them."""
        process = self.model.process
        if process is None:
            return False
        known = {*process.carried, *process.levels, *process.control_names}
        return {h.name for h in self.model.held} | {c.name for c in self.model.steered} <= known


def at_interval(control: str, interval: int) -> str:
    """Name of a set-point within an interval, counted from 0."""
    return f"{control}_at_{interval + 1}"


def begins(interval: int) -> str:
    """Name of the time at which an interval begins, counted from 0."""
    return f"begins_{interval + 1}"


def amount_of(name: str) -> str:
    """Name of the amount of what is carried."""
    return f"n_{name}"


def amount_unit(unit: str) -> str:
    """Unit of an amount, of the unit of its concentration.

    Example:
        >>> amount_unit("g/L"), amount_unit("1e6 cells/mL")
        ('g', '1e9 cells')
    """
    if unit.endswith("/L"):
        return unit.removesuffix("/L")
    return "1e9 cells" if unit == "1e6 cells/mL" else f"{unit} L"
