"""What a model card says of a described culture: its parts, and its mechanism's constants."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from perfusio_jax._core.text import shown_unit
from perfusio_jax.gp import FitReport
from perfusio_jax.hybrid import HybridStateSpaceModel, Layout
from perfusio_jax.mechanistic import Mechanism, Monod, Told, movable, told_constants
from perfusio_jax.process import Process

_FAR = 2.0
"""Prior standard deviations beyond which it is told how many a constant moved [-]."""

_SCALED = {"a": "size", "b": "pace", "c": "pace"}
"""Constants of the plain Monod that are held in units of another of its fields."""


def culture_lines(process: Process, layout: Layout, assumptions: Sequence[str]) -> list[str]:
    """The section about the culture.

    Args:
        process: The culture.
        layout: How the model has it.
        assumptions: What had to be assumed, one sentence each.
    """
    about = f": {process.description}" if process.description else ""
    readings = ", ".join(f"{n} [{shown_unit(process.quantity(n).unit)}]" for n in process.readings)
    controls = ", ".join(f"{c.name} [{shown_unit(c.unit)}]" for c in process.controls)
    flows = ", ".join(f"{s.name} ({s.direction})" for s in process.streams)
    lines = [
        "## Culture",
        "",
        f"- `{process.name}`{about}; {process.volume_L:g} L.",
        f"- Measured: {readings}.",
        f"- Set: {controls or 'nothing'}.",
        f"- Streams: {flows or 'none, a batch'}.",
        f"- Rates are {'volumetric' if layout.cells is None else f'per {process.rates_per}'}.",
    ]
    if layout.latent:
        never = ", ".join(layout.face[k] for k in layout.latent)
        lines.append(
            f"- Never measured: {never}. The mechanism alone moves what they stand for; forecasts "
            "of them rest on nothing else and are not judged."
        )
    derived = [
        q.name
        for q in process.quantities
        if q.kind == "derived" and q.is_measured and q.name not in layout.face
    ]
    if derived:
        lines.append(f"- Measured and not modelled: {', '.join(derived)}.")
    return lines + [f"- Assumed: {line}" for line in assumptions]


def mechanism_lines(model: HybridStateSpaceModel, report: FitReport) -> list[str]:
    """The mechanism of a described culture, with its constants as they came out.

    Args:
        model: The model.
        report: Of its fit; it knows how far the constants were moved.
    """
    kinetics, process = model.mech_model.kinetics, model.mech_model.process
    if kinetics is None:
        return [
            "- No mechanism: all rates are learned, on the exact balance of what flows in and out."
        ]
    steps = report.details.get("calibration") or []
    z = np.asarray(steps[-1].z) if steps else np.zeros(0)
    centre = "raw samples" if isinstance(kinetics, Monod) else "the value given"
    return [
        f"- Mechanism {type(kinetics).__name__}, constants as the data moved them (from {centre}):",
        "",
        "| constant | value | unit | moved | source |",
        "|---|---:|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in _rows(kinetics, z, process)),
        "",
    ]


def _rows(kinetics: Mechanism, z: np.ndarray, process: Process) -> list[tuple[str, ...]]:
    """Name, value, unit, how far moved and source of every number."""
    free = movable(kinetics)
    at, rows = 0, []
    for name, told in told_constants(kinetics).items():
        values = np.asarray(getattr(kinetics, name), float)
        flat = values.ravel()
        labels = _labels(kinetics, name, values)
        deviations = None
        if name in free:
            deviations = z[at : at + flat.size]
            at += flat.size
        for i, (label, value) in enumerate(zip(labels, flat, strict=True)):
            size = _size(kinetics, name, i)
            moved = "fixed"
            if deviations is not None:
                moved = "not moved"
                if deviations.size == flat.size:
                    moved = _moved(told, values.shape, i, float(deviations[i]), size)
            unit = _unit(kinetics, told.unit, name, i, process)
            rows.append((label, f"{size * value:.4g}", shown_unit(unit), moved, told.source or "–"))
    return rows


def _moved(told: Told, shape: tuple[int, ...], i: int, z: float, size: float) -> str:
    """How far a constant was moved: by a factor, or by an amount."""
    is_factor = told.log_sd is not None
    sd: Any = told.log_sd if is_factor else told.sd
    step = float(np.broadcast_to(np.asarray(sd, float), shape).ravel()[i]) * z
    text = f"x {np.exp(step):.3g}" if is_factor else f"{size * step:+.3g}"
    return f"{text}, {abs(z):.1f} prior deviations" if abs(z) > _FAR else text


def _labels(kinetics: Mechanism, name: str, values: np.ndarray) -> list[str]:
    if values.ndim == 0:
        return [name]
    parts = _parts(kinetics, name)
    known = parts if len(parts) == values.size else [str(i) for i in range(values.size)]
    return [f"{name}[{part}]" for part in known]


def _parts(kinetics: Mechanism, name: str) -> list[str]:
    """What each number of a constant of the plain Monod is of."""
    if not isinstance(kinetics, Monod):
        return []
    return list(kinetics.controls if name == "e" else kinetics.others)


def _size(kinetics: Mechanism, name: str, i: int) -> float:
    """What a number of the plain Monod is told in: yields and rates of products have a scale."""
    if not isinstance(kinetics, Monod) or name not in _SCALED:
        return 1.0
    return float(np.asarray(getattr(kinetics, _SCALED[name]))[i])


def _unit(kinetics: Mechanism, unit: str, name: str, i: int, process: Process) -> str:
    """The unit, with those of the culture in place of letters for the plain Monod."""
    if not isinstance(kinetics, Monod):
        return unit
    letters = {"S": kinetics.substrate, "X": kinetics.biomass}
    if name in _SCALED:
        letters["C"] = kinetics.others[i]
    is_bare = "/" not in unit
    for letter, quantity in letters.items():
        own = process.quantity(quantity).unit
        text = own if is_bare else f"({own} {quantity})"
        unit = unit.replace(f"unit of {letter}", text)
    return unit
