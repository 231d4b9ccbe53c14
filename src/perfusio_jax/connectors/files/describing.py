"""A process read off a campaign table: what its columns are taken for, and every assumption.

Rules of thumb, each told in a sentence. A person corrects what is wrong; nothing here is fitted.
"""

import re
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from perfusio_jax._core import (
    AUXILIARY_TAGS,
    CONTROL_NAMES,
    REGISTRY,
    STREAM_TOTALS,
    DataError,
)
from perfusio_jax._core.assays import ASSAYS
from perfusio_jax._core.plausible import PLAUSIBLE
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.process.description import Process
from perfusio_jax.process.parts import UNITLESS, Quantity, dimensions

from ..tables.file_rules import FileRules
from ..tables.labels import NAME
from ..tables.totals import Totals
from .described_streams import Flowing, controls_and_streams, short
from .parts import Tables, first_of, title_of
from .table_survey import Survey, survey

FOLLOWS: Final = ("VCV", "Diam", "capacitance")
"""What follows from cells and is not modelled by itself."""

BIOMASS: Final = ("x", "biomass", "cdw", "dcw", "dw", "od", "od600", "wcw", "cells")
"""What rates may refer to where there is no VCD, in lower case, the first of them."""

_WEIGHED: Final = re.compile(r"biomass|[cd][cd]w|wcw|dw|od\d*|(dry|wet)(cell)?(weight|mass)")
"""The same where it is one word of a name, or several that follow each other."""
_OPTICAL: Final = re.compile(r"od\d*")

MEASURED: Final = frozenset(
    {
        *(n.casefold() for n in REGISTRY),
        *BIOMASS,
        *"s p od600 dw glucose gluc lactate glutamine glutamate ammonium ammonia nh4".split(),
        *"pyruvate ethanol etoh acetate acetic glycerol substrate product titre igg mab".split(),
        *"protein viability glycine methanol meoh xylose sucrose galactose maltose".split(),
    }
)
"""Words of names that are read from a sample whatever their values look like, in lower case."""

_LEVELS: Final = frozenset("ph do po2 pco2 redox orp osm osmolality rq our cer otr ctr".split())
"""Words of names that streams do not carry, where no unit tells, in lower case."""

_SET: Final = frozenset("feed bolus added set setpoint sp in inlet target".split())
"""Words that make of the name of a quantity that of something set, in lower case."""

_HELD: Final = 3
"""Samples that a value is held for, on average, where somebody sets it."""
_CV: Final = 0.07
_PH_ERROR: Final = 0.05
"""Of a pH [-]."""
_COUNTED: Final = 0.01
"""Of what a pump or a balance counts [-]."""
_WHOLES: Final = ({"share": 1}, {"length": 3}, {"mass": 1}, {"amount": 1})
"""Dimensions of what cannot be less than nothing."""
_BELOW: Final = 0.05
"""How far below 0 a probe may drift that never read below it, in parts of its highest reading."""


class Described(NamedTuple):
    """A process, and what had to be assumed to have it."""

    process: Process
    """What the table was taken for."""
    assumptions: tuple[str, ...]
    """One sentence each: the name it is about, a colon, and what was assumed."""


def describe_table(
    path: Tables,
    *,
    name: str | None = None,
    decimal: str | None = None,
    totals: Totals | None = None,
    rules: FileRules | None = None,
) -> Described:
    """Read a process off a campaign table.

    What it leaves out stays unknown to the process: such a table is read by it with
    `unknown="ignore"`.

    Args:
        path: A table of any kind that is read, several, or a folder of them.
        name: Name of the process; that of the file by default.
        decimal: "." or ","; by default from the sidecar, else found out.
        totals: "cumulative" where stream totals are counters, "increments" where they are the
            volumes since the sample before; by default from the sidecar, else told apart.
        rules: How the file is read; `decimal` and `totals` beat it.

    Returns:
        The process with the assumptions it rests on.

    Raises:
        DataError: If it cannot be read as a campaign table, or nothing in it is a quantity.
        UnitError: If a unit of one of our columns cannot be read or does not fit.
    """
    changes = {"decimal": decimal, "totals": totals}
    rules = (rules or FileRules()).but(**{n: v for n, v in changes.items() if v is not None})
    table = survey(path, rules)
    told = list(table.left_out)
    quantities = _quantities(table, told)
    if not quantities:
        raise DataError(
            f"{title_of(path)}: nothing in it is a quantity: "
            f"{' '.join(told) or 'it has no column of numbers but times.'} Known are "
            f"{', '.join(REGISTRY)}; others are any columns of numbers."
        )
    biomass = _biomass(quantities, told)
    # no feed brings what is cells by its name, whichever of several columns rates are per
    also = {q.name for q in quantities if _weighs_cells(q.name)}
    cells = {"VCD", "DCD", "Lys", *also, *([biomass] if biomass else [])}
    flowing = Flowing(
        table,
        {q.name: q for q in quantities},
        cells={q.name for q in quantities if q.kind == "carried" and q.name in cells},
        is_set=lambda n: _is_set(table, n),
    )
    controls, streams = controls_and_streams(flowing, told)
    process = Process(
        name=name or _name_of(first_of(path)),
        description=f"Read off {title_of(path)[:80]}",
        volume_L=_volume(table, told),
        biomass=biomass,
        quantities=quantities,
        controls=controls,
        streams=streams,
    )
    return Described(process, tuple(told))


def _name_of(path: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9]+", "_", path.stem).strip("_")[:40]
    return name if NAME.fullmatch(name) and name != "rest" else "culture"


def _volume(table: Survey, told: list[str]) -> float:
    if "volume_L" in table.columns:
        return float(np.median(table.firsts("volume_L")))
    told.append("volume_L: the table has no such column; 1 L is assumed.")
    return 1.0


# ------------------------------------------------------------------ what is set, what is measured


def _is_set(table: Survey, name: str) -> bool:
    """Whether a column is taken for what somebody sets."""
    if name in CONTROL_NAMES:
        return True
    if name in REGISTRY or name in STREAM_TOTALS or name == "volume_L":
        return False
    if name in AUXILIARY_TAGS:  # read by probes, unless runs differ by what is held
        return _is_held(table, name) and np.unique(table.known(name)).size > 1
    if _is_dosed(name, table.units[name]):
        return True
    is_read = bool(MEASURED & words_of(name)) or _is_biomass(name)
    if is_read and not _SET & words_of(name):
        return False
    return _is_held(table, name) or _is_flow(table, name)


def words_of(name: str) -> set[str]:
    """Words of a name, in lower case: those between underscores, and the whole."""
    folded = name.casefold()
    return {folded, *folded.split("_")} - {""}


def _weighs_cells(name: str) -> bool:
    """Whether a name says that cells were weighed or held into light: OD600, dry_cell_weight."""
    words = name.casefold().split("_")
    if {"dead", "lysed"} & set(words):
        return False
    runs = ("".join(words[i:k]) for i in range(len(words)) for k in range(i + 1, len(words) + 1))
    return any(_WEIGHED.fullmatch(run) for run in runs)


def _is_biomass(name: str) -> bool:
    return name.casefold() in BIOMASS or _weighs_cells(name)


def _is_held(table: Survey, name: str) -> bool:
    """Whether within every run a value is held for several samples, or throughout."""
    lengths = []
    for values in table.columns[name]:
        there = values[~np.isnan(values)]
        changes = int(np.sum(there[1:] != there[:-1]))
        if changes and there.size < _HELD * (changes + 1):
            return False
        lengths.append(there.size)
    return max(lengths) > 1


def _is_dosed(name: str, unit: str) -> bool:
    folded = name.casefold()
    is_amount = _powers(unit) in ({"mass": 1}, {"amount": 1})
    return "bolus" in folded or (is_amount and ("feed" in folded or "added" in folded))


def _is_flow(table: Survey, name: str) -> bool:
    """Whether a unit and a name are those of a flow, however often it changes."""
    powers = _powers(table.units[name])
    says = ("dilution", "feed", "flow", "perfusion", "harvest", "pump", "medium", "bleed")
    is_said = any(word in name.casefold() for word in says)
    return powers == {"length": 3, "time": -1} or (powers == {"time": -1} and is_said)


def _powers(unit: str) -> dict[str, int]:
    return dimensions(unit) if unit else {}


# ------------------------------------------------------------------ quantities


def _quantities(table: Survey, told: list[str]) -> tuple[Quantity, ...]:
    names = [n for n in table.columns if n not in (*STREAM_TOTALS, "volume_L")]
    measured = []
    for name in (n for n in names if not _is_set(table, n)):
        if name in FOLLOWS:
            told.append(f"{name}: follows from the cells; left out.")
        elif np.unique(table.known(name)).size < 2:
            value = table.known(name)[0]
            told.append(f"{name}: is {value:g} wherever it was read; nothing to learn, left out.")
        else:
            measured.append(name)
    found = {name: _quantity(table, name, told) for name in measured}
    by_name = {name: q for name, q in found.items() if q is not None}
    return tuple(_with_dead_cells(by_name, told).values())


def _quantity(table: Survey, name: str, told: list[str]) -> Quantity | None:
    """A measured column as a quantity; None if it cannot be one."""
    values = table.known(name)
    unit = table.units[name] if name in table.units else canonical_unit(name)
    if not unit:
        is_level = bool(_LEVELS & words_of(name))
        is_optical = any(_OPTICAL.fullmatch(word) for word in words_of(name))
        unit = "1" if is_level else "OD" if is_optical else "g/L"
        told.append(f"{name}: the table states no unit; {unit!r} is assumed.")
    is_carried = name != "Via" and name not in AUXILIARY_TAGS and _is_concentration(unit)
    if is_carried and values.max() <= 0.0:
        told.append(f"{name}: no reading is above 0, which no concentration is below; left out.")
        return None
    kind = "derived" if name == "Via" else "carried" if is_carried else "level"
    if kind == "level":
        why = "is read by a probe" if name in AUXILIARY_TAGS else f"{unit!r} is no concentration"
        told.append(f"{name}: {why}; taken for a level, which no flow carries.")
    lo, hi = _range(name, values, unit, is_carried=is_carried)
    floor = 0.0 if name == "Via" else 0.01 * float(np.quantile(np.abs(values), 0.9))
    label, cv = ASSAYS.get(name, ("", _CV))
    errs = f"{100 * cv:g} %"
    if kind == "level" and _is_counter(table, name, unit):
        cv, floor, errs = _COUNTED, 0.5 * floor, f"{100 * _COUNTED:g} %, as a counter"
    if _is_acidity(name, unit):  # a logarithm: its error does not grow with it
        cv, floor, errs = 0.0, _PH_ERROR, f"{_PH_ERROR:g}"
    if not _is_usual(name, values):
        told.append(
            f"{name}: range {lo:g} to {hi:g} {unit} is that of the data, widened; the assay is "
            f"assumed to err by {errs}."
        )
    if is_carried and np.any(values < 0.0):
        n = int(np.sum(values < 0.0))
        told.append(f"{name}: {n} reading(s) are below 0, and will be refused; leave them empty.")
    return Quantity(
        name=name, unit=unit, kind=kind, label=label, lo=lo, hi=hi, cv=cv, floor=short(floor, floor)
    )


def _is_usual(name: str, values: np.ndarray) -> bool:
    """Whether a species is ours and its readings lie where we know it."""
    if name not in ASSAYS:
        return False
    known = PLAUSIBLE[name]
    return known.lo <= float(values.min()) and float(values.max()) <= known.hi


def _is_concentration(unit: str) -> bool:
    powers = _powers(unit)
    return powers.get("length") == -3 and len(powers) == 2


def _is_counter(table: Survey, name: str, unit: str) -> bool:
    """Whether a volume or an amount never falls within a run, as what a pump has given so far."""
    if unit in UNITLESS or _powers(unit) not in _WHOLES or "share" in _powers(unit):
        return False
    falls, rises = 0.0, 0.0
    for values in table.columns[name]:
        steps = np.diff(values[~np.isnan(values)])
        falls += float(-steps[steps < 0.0].sum())
        rises += float(steps[steps > 0.0].sum())
    return falls < 0.05 * rises


def _is_acidity(name: str, unit: str) -> bool:
    """Whether it is a pH."""
    return unit == "pH" or (unit in UNITLESS and "ph" in words_of(name))


def _range(name: str, values: np.ndarray, unit: str, *, is_carried: bool) -> tuple[float, float]:
    """Plausible range: ours where it holds the data, else that of the data, widened by half.

    A pH that was held well has next to no range, and a culture that runs away leaves it: it is
    widened by a whole step. A share, a volume or an amount that never read below 0 is not
    believed far below it.
    """
    low, high = float(values.min()), float(values.max())
    if _is_usual(name, values):
        return PLAUSIBLE[name].lo, PLAUSIBLE[name].hi
    half = 0.5 * (high - low)
    if _is_acidity(name, unit):
        half = max(half, 1.0)
        return max(short(low - half, half), 0.0), min(short(high + half, half), 14.0)
    is_all_of_it = _powers(unit) in _WHOLES if unit not in UNITLESS else False
    least = -_BELOW * high if is_all_of_it and low >= 0.0 else -np.inf
    low, high = max(low - half, least), high + half
    if is_carried:
        low, high = max(low, 0.0), max(high, 3.0 * float(values.max()))
    return short(low, high - low), short(high, high - low)


def _with_dead_cells(by_name: dict[str, Quantity], told: list[str]) -> dict[str, Quantity]:
    """Viability as it follows from cells, the dead ones latent where nobody counts them."""
    if "Via" not in by_name:
        return by_name
    if "VCD" not in by_name:
        told.append("Via: there is no VCD it follows from; it is read and not modelled.")
        return by_name
    known, assay = PLAUSIBLE["DCD"], ASSAYS["DCD"]
    dead = Quantity(
        name="DCD",
        unit=canonical_unit("DCD"),
        label=assay.label,
        lo=known.lo,
        hi=known.hi,
        cv=assay.cv,
        is_measured=False,
    )
    if "DCD" not in by_name:
        told.append("DCD: nobody counts dead cells; they are a latent state that Via tells of.")
    via = by_name["Via"].replace(formula="viability", of=("VCD", "DCD"))
    out: dict[str, Quantity] = {}
    for name, q in by_name.items():
        out[name] = via if name == "Via" else q
        if name == "VCD":
            out["DCD"] = by_name.get("DCD", dead)
    return out


def _biomass(quantities: tuple[Quantity, ...], told: list[str]) -> str | None:
    folded = {q.name.casefold(): q.name for q in quantities if q.kind == "carried"}
    if "VCD" in folded.values():
        return "VCD"
    found = next((folded[word] for word in BIOMASS if word in folded), None)
    found = found or next((name for name in folded.values() if _is_biomass(name)), None)
    if found is None:
        told.append(
            "biomass: no column is known to be cells or biomass, so rates are volumetric; "
            "`biomass` names one."
        )
    else:
        others = [n for n in folded.values() if n != found and _is_biomass(n)]
        also = f" {' and '.join(others)} tells of the same cells, too." if others else ""
        told.append(f"biomass: rates are taken to be per {found}.{also}")
    return found
