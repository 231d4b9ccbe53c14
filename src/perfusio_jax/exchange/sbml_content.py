"""What a document of SBML holds: values, what moves, and what is set when.

What cannot be taken is refused here, by name.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import unescape

from perfusio_jax._core import ConfigError, DataError

from .formulas import Book, Formula, value_of
from .mathml import expanded, from_tree
from .sbml_units import text_of_unit
from .sbml_writing import NAMESPACE

_MOST_MB = 50


def text_of(source: Path | str) -> str:
    """Text of a file, or the text itself.

    Raises:
        DataError: If the file is missing, is no text or is too large.
    """
    if not isinstance(source, Path):
        return source
    try:
        if source.stat().st_size > _MOST_MB * 1e6:
            raise DataError(f"{source} has more than {_MOST_MB} MB; a model is smaller.")
        return source.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{source} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source} cannot be read: {error}.") from None


def document_of(text: str, where: str) -> Any:
    """A document of libSBML: level 3, functions and local parameters written out.

    Args:
        text: Of the document.
        where: What to call it in messages.

    Raises:
        DataError: If it is none, or needs a package that is not read.
    """
    import libsbml

    document = libsbml.readSBMLFromString(text)
    log = document.getErrorLog()
    for k in range(log.getNumErrors()):
        if log.getError(k).getSeverity() >= libsbml.LIBSBML_SEV_ERROR:
            raise DataError(f"{where} is no SBML: {' '.join(log.getError(k).getMessage().split())}")
    if document.getModel() is None:
        raise DataError(f"{where} holds no model.")
    model = document.getModel()
    if any(model.getRule(k).isAlgebraic() for k in range(model.getNumRules())):
        raise DataError(f"{where} has an algebraic rule, which says what is zero, not what moves.")
    told = document.getNumPlugins() if document.getLevel() >= 3 else 0
    for package in (document.getPlugin(k).getPackageName() for k in range(told)):
        # what level 3 version 2 has by itself is a package to libSBML
        if package != "l3v2extendedmath" and document.getPackageRequired(package):
            raise DataError(f"{where} needs the package {package!r} of SBML, which is not read.")
    if document.getLevel() < 3 and not document.setLevelAndVersion(3, 2, False):
        raise DataError(f"{where} is SBML level {document.getLevel()} that has no level 3 form.")
    for what in ("expandFunctionDefinitions", "promoteLocalParameters"):
        wish = libsbml.ConversionProperties()
        wish.addOption(what, True)
        if document.convert(wish) != libsbml.LIBSBML_OPERATION_SUCCESS:
            raise DataError(f"{where}: libSBML cannot {what}.")
    return document


def each(count: int, get: Any) -> list[Any]:
    """Members of one of libSBML's lists."""
    return [get(k) for k in range(count)]


class Content:
    """Of one document."""

    def __init__(self, document: Any) -> None:
        self._document = document  # what belongs to it ends with it
        self.model = document.getModel()
        self.book = Book()
        self.remarks: list[str] = []
        self._refuse()
        self.rules = {
            r.getVariable(): self._formula(r, f"the assignment of {r.getVariable()}")
            for r in self._all("Rule")
            if r.isAssignment()
        }
        """Assignments, and rates of reactions, by name."""
        self.values, self.units = self._values()
        """Numbers at the start, and units, by name."""
        self.moves = self._moving()
        """Rate of everything that moves: of what its name stands for."""
        self.schedule = self._events()
        """Set-points that change: times [h] and values, from the start on."""

    @property
    def vessels(self) -> list[str]:
        """Compartments."""
        return [c.getId() for c in self._all("Compartment")]

    def _all(self, kind: str) -> list[Any]:
        plural = "getNumSpecies" if kind == "Species" else f"getNum{kind}s"
        return each(getattr(self.model, plural)(), getattr(self.model, f"get{kind}"))

    def _formula(self, holder: Any, where: str) -> Formula:
        tree = holder.getMath()
        if tree is None:
            raise ConfigError(f"{where} is empty.")
        return from_tree(tree, self.book, where)

    def _refuse(self) -> None:
        """Refuse what cannot be taken, by name."""
        model = self.model
        fast = [r.getId() for r in self._all("Reaction") if r.isSetFast() and r.getFast()]
        if fast:
            raise ConfigError(f"reactions {', '.join(fast)} are fast; only rates are taken.")
        if model.getNumConstraints():
            self.remarks.append(f"{model.getNumConstraints()} constraint(s) are not watched")

    def _values(self) -> tuple[dict[str, float], dict[str, str | None]]:
        """Numbers that things have at the start, and their units."""
        values: dict[str, float] = {}
        units: dict[str, str | None] = {}
        sizes: dict[str, float] = {}
        for c in self._all("Compartment"):
            sizes[c.getId()] = c.getSize() if c.isSetSize() else 1.0
            values[c.getId()] = sizes[c.getId()]
            units[c.getId()] = text_of_unit(c.getDerivedUnitDefinition())
        for p in self._all("Parameter"):
            values[p.getId()] = p.getValue() if p.isSetValue() else math.nan
            units[p.getId()] = text_of_unit(p.getDerivedUnitDefinition())
            declared = self.model.getUnitDefinition(p.getUnits())
            if declared is not None and declared.getName():
                units[p.getId()] = text_of_unit(declared) or units[p.getId()]
        for s in self._all("Species"):
            size = sizes.get(s.getCompartment(), 1.0)
            amount = s.getInitialAmount() if s.isSetInitialAmount() else math.nan
            if s.isSetInitialConcentration():
                amount = s.getInitialConcentration() * size
            whole = s.getHasOnlySubstanceUnits()
            values[s.getId()] = amount if whole else amount / size
            units[s.getId()] = text_of_unit(s.getDerivedUnitDefinition())
        for r in self._all("Reaction"):
            for side in (_references(r, "Reactant"), _references(r, "Product")):
                for reference in side:
                    if reference.isSetId():
                        values[reference.getId()] = reference.getStoichiometry()
                        units[reference.getId()] = "1"
        begun = {
            a.getSymbol(): self._formula(a, f"the start of {a.getSymbol()}")
            for a in self._all("InitialAssignment")
        }
        # an assignment at the start may speak of others, and of rules
        for name, formula in begun.items():
            whole = expanded(formula, {**self.rules, **without(begun, name)}, self.book)
            found = value_of(whole, values)
            if not math.isfinite(found):
                raise ConfigError(f"the start of {name} is no number.")
            values[name] = found
        return values, units

    def _moving(self) -> dict[str, Formula]:
        """Rate of everything that moves: of what its name stands for."""
        rates: dict[str, Formula] = {}
        for r in self._all("Rule"):
            if r.isRate():
                name = r.getVariable()
                rates[name] = self._formula(r, f"the rate of {name}")
        species = {s.getId(): s for s in self._all("Species")}
        amounts: dict[str, Formula] = {}
        for reaction in self._all("Reaction"):
            self._add_reaction(reaction, species, amounts)
        moving_vessels = {c.getId() for c in self._all("Compartment")} & {*rates, *self.rules}
        for name, rate in amounts.items():
            if name in rates or name in self.rules:
                raise ConfigError(f"{name} moves by reactions and by a rule at once.")
            whole = species[name]
            if not whole.getHasOnlySubstanceUnits():
                home = whole.getCompartment()
                if home in moving_vessels:
                    raise ConfigError(
                        f"{name} is a concentration in {home}, whose size moves; give its amount "
                        "(hasOnlySubstanceUnits)."
                    )
                rate = self.book.apply("divide", rate, self.book.name(home))
            rates[name] = rate
        for name in rates:
            whole = species.get(name)
            if (
                whole is not None
                and name not in amounts
                and not whole.getHasOnlySubstanceUnits()
                and whole.getCompartment() in moving_vessels
            ):
                raise ConfigError(
                    f"{name} is a concentration in {whole.getCompartment()}, whose size moves; "
                    "give its amount (hasOnlySubstanceUnits)."
                )
        if not rates:
            raise ConfigError("nothing in it moves: no reaction and no rate rule.")
        return rates

    def _add_reaction(
        self, reaction: Any, species: Mapping[str, Any], amounts: dict[str, Formula]
    ) -> None:
        law = reaction.getKineticLaw()
        if law is None or law.getMath() is None:
            raise ConfigError(f"reaction {reaction.getId()} has no kinetic law.")
        rate = self._formula(law, f"reaction {reaction.getId()}")
        self.rules.setdefault(reaction.getId(), rate)
        for sign, side in ((-1.0, "Reactant"), (1.0, "Product")):
            for reference in _references(reaction, side):
                name = reference.getSpecies()
                if species[name].getBoundaryCondition() or species[name].getConstant():
                    continue
                if species[name].isSetConversionFactor() or self.model.isSetConversionFactor():
                    raise ConfigError(f"{name} has a conversion factor, which is not taken.")
                number = reference.getStoichiometry() if reference.isSetStoichiometry() else 1.0
                times: Formula = self.book.number(sign * number)
                if reference.isSetId() and reference.getId() in self.rules:
                    known = self.book.name(reference.getId())
                    times = self.book.apply("times", self.book.number(sign), known)
                part = self.book.apply("times", times, self.book.name(reaction.getId()))
                old = amounts.get(name, self.book.number(0.0))
                amounts[name] = self.book.apply("plus", old, part)

    def _events(self) -> dict[str, list[tuple[float, float]]]:
        """Set-points that change at given times; any other event is refused by name."""
        import libsbml

        found: dict[str, list[tuple[float, float]]] = {}
        for event in self._all("Event"):
            name = event.getId() or event.getName() or "without a name"
            tree: Any = event.getTrigger().getMath() if event.getTrigger() else None
            late = (libsbml.AST_RELATIONAL_GT, libsbml.AST_RELATIONAL_GEQ)
            is_time = (
                tree is not None
                and tree.getType() in late
                and tree.getChild(0).getType() == libsbml.AST_NAME_TIME
            )
            if tree is None or not is_time or event.isSetDelay() or event.isSetPriority():
                raise ConfigError(
                    f"event {name} does not wait for a time alone; only set-points that change at "
                    "given times are taken."
                )
            when = self._known(from_tree(tree.getChild(1), self.book, f"event {name}"))
            for a in each(event.getNumEventAssignments(), event.getEventAssignment):
                variable = a.getVariable()
                if variable in self.moves:
                    if self.noted("process"):  # a bolus or a sample: the description says so
                        continue
                    raise ConfigError(
                        f"event {name} sets {variable}, which moves by itself; what is given at "
                        "once belongs in a description of the culture (a bolus)."
                    )
                value = self._known(self._formula(a, f"event {name}"))
                found.setdefault(variable, [(0.0, self.values[variable])]).append((when, value))
        for variable, steps in found.items():
            if any(not math.isfinite(v) for step in steps for v in step):
                raise ConfigError(f"events set {variable} to what is no number before a run.")
            steps.sort()
        return found

    def _known(self, formula: Formula) -> float:
        return value_of(expanded(formula, self.rules, self.book), self.values)

    def noted(self, what: str) -> str | None:
        """What we noted in a file of ours (`process` or `priors`); None if nothing."""
        annotation = self.model.getAnnotation()
        tops = [] if annotation is None else each(annotation.getNumChildren(), annotation.getChild)
        own = [t for t in tops if t.getURI() == NAMESPACE]
        for child in (c for t in own for c in each(t.getNumChildren(), t.getChild)):
            if child.getName() == what:
                parts = each(child.getNumChildren(), child.getChild)
                text = "".join(p.getCharacters() for p in parts if p.isText())
                return unescape(text, {"&quot;": '"', "&apos;": "'"}) + "\n"
        return None


def _references(reaction: Any, side: str) -> list[Any]:
    return each(getattr(reaction, f"getNum{side}s")(), getattr(reaction, f"get{side}"))


def without(rules: Mapping[str, Formula], name: str) -> dict[str, Formula]:
    """Rules but one."""
    return {n: f for n, f in rules.items() if n != name}
