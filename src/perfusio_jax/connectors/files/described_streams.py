"""Controls and streams that a process read off a table has."""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from perfusio_jax._core import CONTROL_NAMES, STREAM_TOTALS
from perfusio_jax._core.glucose import GLUCOSE_FEED
from perfusio_jax._core.text import shown_unit
from perfusio_jax._core.unit_text import parse_unit
from perfusio_jax._core.units import CANONICAL_UNITS
from perfusio_jax.process.parts import REST, Control, Quantity, Stream, dimensions

from ..tables.aliases import COMMON_WORDS
from .process_comments import CONTENT
from .table_survey import Survey

_LEAVES: Final = ("bleed", "harvest", "outflow", "out", "waste", "withdraw", "permeate")
"""Words in the name of a flow that leaves."""
_FASTEST: Final = 5.0
"""No culture is diluted faster [1/h]; what says so is something else."""
_TRACE: Final = 0.05
"""What begins below this share of its largest reading is made by the cells, not fed."""


class Flowing(NamedTuple):
    """What controls and streams are told from."""

    table: Survey
    """The columns."""
    quantities: Mapping[str, Quantity]
    """What is measured or latent, by name."""
    cells: set[str]
    """Carried quantities that a filter holds back."""
    is_set: Callable[[str], bool]
    """Whether a column is set rather than measured."""


def controls_and_streams(
    flowing: Flowing, told: list[str]
) -> tuple[tuple[Control, ...], tuple[Stream, ...]]:
    """Controls and streams of a table.

    Args:
        flowing: What they are told from.
        told: Takes a sentence for each assumption.
    """
    names = [n for n in flowing.table.columns if flowing.is_set(n)]
    controls: list[Control] = []
    streams: list[Stream] = []
    later = []
    for name in names:
        unit = _unit(flowing, name, told)
        if name not in CANONICAL_UNITS or name in ("perfusion_rate", "bleed_rate"):
            if not _is_signed(flowing, name) and _is_flow(flowing, name, unit):
                controls.append(_control(flowing, name, unit, "flow"))
                streams.append(_stream(flowing, name, unit, {s.name for s in streams}, told))
                continue
        later.append((name, unit))
    for name, unit in later:
        if _is_signed(flowing, name) and name not in CANONICAL_UNITS:
            told.append(f"{name}: is below 0 in places, so it is no flow and no amount.")
            told.append(f"{name}: taken for what cells live in, which is set.")
            controls.append(_control(flowing, name, unit, "environment"))
            continue
        made = _pumped(flowing, name, streams, told) or _added(flowing, name, unit, streams, told)
        made = made or _dose(flowing, name, unit, told) or _fed(flowing, name, unit, streams, told)
        if made is None:
            if name not in CONTROL_NAMES:
                told.append(f"{name}: taken for what cells live in, which is set.")
            made = _control(flowing, name, unit, "environment")
        controls.append(made)
    order = {name: k for k, name in enumerate(names)}
    controls.sort(key=lambda c: order[c.name])
    _tell_ranges(flowing, controls, told)
    streams += _closing(flowing, {c.name: c for c in controls}, streams, told)
    _tell_totals(flowing, streams, told)
    return tuple(controls), tuple(streams)


# ------------------------------------------------------------------ flows


def _unit(flowing: Flowing, name: str, told: list[str]) -> str:
    if name not in flowing.table.units:
        return CANONICAL_UNITS[name]
    unit = flowing.table.units[name]
    if not unit:
        told.append(f"{name}: the table states no unit; '1' is assumed.")
    return unit or "1"


def _is_signed(flowing: Flowing, name: str) -> bool:
    return bool(np.any(flowing.table.known(name) < 0.0))


def _is_flow(flowing: Flowing, name: str, unit: str) -> bool:
    powers = dimensions(unit)
    if powers == {"time": -1}:
        per_hour = float(parse_unit(unit).factor) * 3600.0
        return bool(np.all(flowing.table.known(name) * per_hour <= _FASTEST))
    return powers == {"length": 3, "time": -1}


def _stream(flowing: Flowing, name: str, unit: str, taken: set[str], told: list[str]) -> Stream:
    totals = [n for n in STREAM_TOTALS if n in flowing.table.columns]
    if name == "perfusion_rate":
        carries = _medium(flowing, "medium", told)
        total = "V_perfusion_L" if "V_perfusion_L" in totals else None
        own = _free("medium", taken)
        return Stream(name=own, direction="in", flow=name, carries=carries, total=total)
    if name == "bleed_rate":
        total = "V_bleed_L" if "V_bleed_L" in totals else None
        return Stream(name=_free("bleed", taken), direction="out", flow=name, total=total)
    own = _free(_stream_name(name), taken)
    if any(word in name.casefold() for word in _LEAVES):
        told.append(
            f"{own}: {name} is taken for a flow that leaves, with all that is in the vessel."
        )
        return Stream(name=own, direction="out", flow=name)
    if dimensions(unit) == {"time": -1}:
        told.append(f"{own}: {name} [{unit}] is taken for the feed of a chemostat.")
        return Stream(name=own, direction="in", flow=name, carries=_medium(flowing, own, told))
    fed = [n for n, q in flowing.quantities.items() if q.kind == "carried"]
    named = _named_in(name, flowing.quantities)
    example = named.name if named else next((n for n in fed if n not in flowing.cells), "Glc")
    told.append(
        f"{own}: nothing is known of what {name} brings; write what it contains below {CONTENT}, "
        f"a line for each quantity, as in {example} = 400.0."
    )
    return Stream(name=own, direction="in", flow=name)


def _stream_name(control: str) -> str:
    if control.casefold() in ("dilution", "dilution_rate", "d"):
        return "feed"
    bare = control
    for ending in ("_rate", "_flow"):
        bare = bare.removesuffix(ending)
    return bare if bare and bare != REST else control


def _medium(flowing: Flowing, stream: str, told: list[str]) -> dict[str, float | str]:
    """What a medium brings: what the vessels held at the start, but for cells and products."""
    carries: dict[str, float | str] = {}
    products = []
    for name, q in flowing.quantities.items():
        if q.kind != "carried" or not q.is_measured or name in flowing.cells:
            continue
        start = float(np.median(flowing.table.firsts(name)))
        largest = float(flowing.table.known(name).max())
        if start < _TRACE * largest:
            products.append(name)
        elif start > 0.0:
            carries[name] = float(f"{start:.4g}")
    brings = ", ".join(f"{n} {v:g}" for n, v in carries.items()) or "nothing"
    text = f"{stream}: assumed to bring what the first samples hold ({brings})"
    if products:
        text += f", and none of {', '.join(products)}, which the cells make"
    told.append(f"{text}; write what it contains.")
    return carries


def _closing(
    flowing: Flowing, controls: Mapping[str, Control], streams: list[Stream], told: list[str]
) -> list[Stream]:
    """The stream that keeps the volume, where a flow in vessel volumes says that it is kept."""
    relative = [s for s in streams if dimensions(controls[s.flow].unit) == {"time": -1}]
    if not relative:
        if streams:
            told.append("volume_L: nothing is known to keep the volume; it moves with the flows.")
        return []
    taken = {s.name for s in streams}
    if not any(s.direction == "in" for s in streams):
        told.append("medium: what leaves is taken to be made up by it; write what it contains.")
        carries = _medium(flowing, "medium", told)
        return [Stream(name=_free("medium", taken), direction="in", flow=REST, carries=carries)]
    if "perfusion_rate" in controls:
        held = ", ".join(n for n in flowing.quantities if n in flowing.cells)
        told.append(f"harvest: assumed to keep the volume and to hold back {held or 'nothing'}.")
        passes = {n: 0.0 for n in flowing.quantities if n in flowing.cells}
        name = _free("harvest", taken)
        return [Stream(name=name, direction="out", flow=REST, passes=passes)]
    told.append("outflow: assumed to keep the volume, with all that is in the vessel.")
    return [Stream(name=_free("outflow", taken), direction="out", flow=REST)]


def _free(name: str, taken: set[str]) -> str:
    """A name no stream has yet."""
    more = itertools.chain([name], (f"{name}_{k}" for k in itertools.count(2)))
    return next(n for n in more if n not in taken)


def _tell_totals(flowing: Flowing, streams: list[Stream], told: list[str]) -> None:
    used = {s.total for s in streams}
    for name in STREAM_TOTALS:
        if name in flowing.table.columns and name not in used and name != "V_sample_L":
            told.append(f"{name}: no stream of the process is recorded by it; not used.")


# ------------------------------------------------------------------ what else is set


def _pumped(flowing: Flowing, name: str, streams: list[Stream], told: list[str]) -> Control | None:
    """A set-point of glucose whose concentrate was recorded."""
    if name != "glucose_setpoint":
        return None
    glucose = flowing.quantities.get("Glc")
    if glucose is None or "V_glucose_L" not in flowing.table.columns:
        lacks = "Glc" if glucose is None else "V_glucose_L"
        told.append(
            f"{name}: there is no column {lacks} that tells what the pump adds; what it adds is "
            "learned with the rates."
        )
        return None
    told.append(f"glucose_feed: its concentrate is assumed to hold {GLUCOSE_FEED:g} g/L glucose.")
    carries: dict[str, float | str] = {"Glc": GLUCOSE_FEED}
    own = _free("glucose_feed", {s.name for s in streams})
    streams.append(
        Stream(name=own, direction="in", flow=name, carries=carries, total="V_glucose_L")
    )
    return _control(flowing, name, CANONICAL_UNITS[name], "target", "Glc")


def _added(
    flowing: Flowing, name: str, unit: str, streams: list[Stream], told: list[str]
) -> Control | None:
    """Pyruvate that comes on top of the medium."""
    if name != "pyruvate_feed":
        return None
    k = next((k for k, s in enumerate(streams) if s.flow == "perfusion_rate"), None)
    if "Pyr" not in flowing.quantities or k is None:
        lacks = "no medium" if k is None else "no column Pyr"
        told.append(f"{name}: there is {lacks} it comes on top of; taken for an environment.")
        return None
    carries = {n: v for n, v in streams[k].carries.items() if n != "Pyr"}
    told.append(f"medium: its pyruvate is assumed to be that of {name} alone.")
    streams[k] = streams[k].replace(carries=carries, adds={"Pyr": name})
    return _control(flowing, name, unit, "composition", "Pyr")


def _dose(flowing: Flowing, name: str, unit: str, told: list[str]) -> Control | None:
    """An amount given at a sample."""
    folded = name.casefold()
    powers = dimensions(unit)
    is_amount = powers in ({"mass": 1}, {"amount": 1})
    if not ("bolus" in folded or (is_amount and ("feed" in folded or "added" in folded))):
        return None
    quantity = _named_in(name, flowing.quantities)
    if quantity is None:
        told.append(f"{name}: no quantity is named in it; taken for an environment, not a bolus.")
        return None
    amount = {k: v for k, v in dimensions(quantity.unit).items() if k != "length"}
    if powers not in (amount, {"length": 3}):
        told.append(
            f"{name}: {unit!r} is no amount of {quantity.name} [{quantity.unit}]; taken for an "
            "environment, not a bolus."
        )
        return None
    told.append(f"{name}: taken for a bolus of {quantity.name}, given right after the sample.")
    return _control(flowing, name, unit, "bolus", quantity.name)


def _fed(
    flowing: Flowing, name: str, unit: str, streams: list[Stream], told: list[str]
) -> Control | None:
    """A concentration in the one feed there is."""
    words = {*name.casefold().split("_")}
    feeds = [
        k for k, s in enumerate(streams) if s.direction == "in" and s.flow != "glucose_setpoint"
    ]
    quantity = _named_in(name, flowing.quantities)
    if quantity is None or unit != quantity.unit or not words & {"feed", "in", "inlet"}:
        return None
    if len(feeds) != 1:
        return None
    stream = streams[feeds[0]]
    told.append(f"{name}: taken for the {quantity.name} that {stream.name} brings.")
    carries = {**stream.carries, quantity.name: name}
    streams[feeds[0]] = stream.replace(carries=carries)
    return _control(flowing, name, unit, "composition", quantity.name)


def _named_in(name: str, quantities: Mapping[str, Quantity]) -> Quantity | None:
    """The carried quantity that is named in the name of a column."""
    folded = name.casefold()
    words = folded.split("_")
    carried = {n: q for n, q in quantities.items() if q.kind == "carried"}
    for n, q in carried.items():
        spoken = {word.casefold() for word, ours in COMMON_WORDS.items() if ours == n}
        if n.casefold() in words or spoken & set(words):
            return q
    inside = [n for n in carried if len(n) >= 3 and n.casefold() in folded]
    return carried[max(inside, key=len)] if inside else None


def _control(
    flowing: Flowing, name: str, unit: str, role: str, quantity: str | None = None
) -> Control:
    values = flowing.table.known(name)
    low, high = float(values.min()), float(values.max())
    default = float(f"{np.median(values):.6g}")
    # what any vessel can be run at is no range of this one: nobody has told how far it may go
    more = 0.1 * ((high - low) or abs(high) or 1.0)
    low = max(low - more, 0.0) if low >= 0.0 else low - more
    low, high = short(low, more), short(high + more, more)
    more_of: dict[str, Any] = {} if quantity is None else {"quantity": quantity}
    return Control(
        name=name,
        unit=unit,
        role=role,  # pyright: ignore[reportArgumentType]
        lo=min(low, default),
        hi=max(high, default),
        default=default,
        **more_of,
    )


def short(value: float, span: float) -> float:
    """A number with the digits that matter beside a span; what data tell needs no more."""
    if not span > 0.0:
        return value
    return round(value, 3 - math.floor(math.log10(span)))


def _tell_ranges(flowing: Flowing, controls: list[Control], told: list[str]) -> None:
    for c in controls:
        unit = shown_unit(c.unit)
        values = flowing.table.known(c.name)
        if values.min() == values.max():
            text = f"is {values[0]:g} throughout: nothing can be learned of it"
        else:
            text = "range is that of the data, widened by a tenth"
        told.append(f"{c.name}: {text}; {c.default:g} {unit} is assumed where nobody tells.")
