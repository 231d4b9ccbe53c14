"""`perfusio-jax sensitivity`: a culture and a question in, a table out."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from perfusio_jax._core.text import shown_unit
from perfusio_jax.process import read_process
from perfusio_jax.study import (
    Experiment,
    GlobalSensitivity,
    LocalSensitivity,
    ShapleyEffects,
    SobolIndices,
    choose_levers,
    every_sample,
    local_sensitivity,
    morris_of_run,
    shapley_of_run,
    sobol_of_run,
)
from perfusio_jax.viz import Bars, Card, Table, show_card

from .asked_run import run_of, sample_hours
from .study_figures import Drawing, draw, map_of, tornado_of

_SHOWN = 20
"""Levers of an output that are shown, the strongest; a file has all."""
_BAR = 16
_MANY = 6
"""Outputs beyond which a table of each is too much."""
_PANELS = 6
_MEASURES = {
    "elasticity": "elasticity [% for 1 %]",
    "total": "total share of the variance [-]",
    "share": "share of the variance [-]",
    "mu*": "mu* [unit of the output]",
}
"""What bars are, by the figure that ranks."""


class Question(NamedTuple):
    """What is asked, as the command line has it."""

    process: str
    """A built-in name, or a file that ends in .toml."""
    mechanism: str | None
    """`monod` or `module:Class`; `monod` if None."""
    clone: str
    """Virtual clone of CHO perfusion."""
    days: float
    """Length of the run [d]."""
    every_h: float
    """Hours between samples [h]."""
    set_points: Mapping[str, float]
    """By name."""
    outputs: tuple[str, ...]
    """As in `read_output`; the product or the biomass at the end if empty."""
    levers: tuple[str, ...] | None
    """As in `choose_levers`."""
    method: str
    """`local`, `morris`, `sobol` or `shapley`."""
    ranges: Mapping[str, tuple[float, float]]
    """Ranges by lever, where the usual ones are not meant."""
    samples: int | None
    """Trajectories or base samples."""
    is_second: bool
    """Whether pairs are asked for."""
    seed: int
    """Of all random numbers."""
    posterior: Path | None = None
    """Folder of a posterior whose draws are the law of constants, for `shapley`."""


class Row(NamedTuple):
    """One lever's say in one output."""

    output: str
    lever: str
    unit: str
    value: float
    """Where the lever stands, or the middle of its range."""
    figures: dict[str, float]
    """By name; the first ranks."""


def tell_sensitivity(
    question: Question,
    *,
    out: Path | None,
    console: Any,
    figure: Path | None = None,
    on_card: Callable[[Card], None] | None = None,
) -> None:
    """Answer a question and write it.

    Args:
        question: What is asked.
        out: File for all figures, .csv or .json; none if None.
        console: Where to print.
        figure: Picture to write as well: bars, or a map of levers by time for "every X".
        on_card: Is given what was concluded.

    Raises:
        ConfigError: If the culture, an output or a lever is unknown.
        SimulationError: If the run fails.
    """
    run = studied_run(question)
    outputs = _asked(run, question.outputs or (_usual_output(run, question.process),))
    each = "every set-point" in (question.levers or ()) or any(
        "@" in name for name in question.levers or ()
    )
    levers = question.levers
    if levers is None and question.method == "local":
        levers = ("constants", "set-points", "feeds", "start")
    with console.status("working"):
        if question.method == "local":
            found: LocalSensitivity | GlobalSensitivity = local_sensitivity(run, outputs, levers)
        else:
            asked: dict[str, Any] = {"ranges": question.ranges, "seed": question.seed}
            if question.samples:
                asked["n"] = question.samples
            if question.method == "morris":
                found = morris_of_run(run, outputs, levers, **asked)
            elif question.method == "shapley":
                draws = None if question.posterior is None else _draws(question, run)
                found = shapley_of_run(run, outputs, levers, draws=draws, **asked)
            else:
                found = sobol_of_run(run, outputs, levers, is_second=question.is_second, **asked)
    rows = _rows(found)
    card = sensitivity_card(found, rows, each=each, source=_source(question))
    drawing = _drawing(found, rows, run)
    card = card._replace(figure=drawing.still)
    show_card(card, console)
    if on_card is not None:
        on_card(card)
    if figure is not None:
        draw(drawing, figure, console)
    if out is not None:
        write_rows(out, [{**row._asdict(), **row.figures, "figures": None} for row in rows])
        console.print(f"written: {out}", soft_wrap=True)


def sensitivity_card(
    found: LocalSensitivity | GlobalSensitivity,
    rows: Sequence[Row],
    *,
    each: bool = False,
    source: str = "",
) -> Card:
    """What moves a run.

    Args:
        found: Derivatives or shares.
        rows: The same, a row per output and lever.
        each: Whether set-points count by interval.
        source: Which run.
    """
    if len(found.outputs) > _MANY:
        tables = (_over_time(found, rows),)
        names = f"{len(found.outputs)} outputs"
    else:
        tables = tuple(
            _table([row for row in rows if row.output == output.name], _title(found, k), each)
            for k, output in enumerate(found.outputs)
        )
        names = ", ".join(output.name for output in found.outputs)
    return Card("sensitivity", f"What moves {names}", tuple(_remarks(found)), (), tables, source)


def _asked(run: Experiment, wanted: Sequence[str]) -> tuple[Any, ...]:
    """Outputs, with `every X` as X at every sample."""
    found: list[Any] = []
    for text in wanted:
        kind, _, name = text.strip().partition(" ")
        found += every_sample(run, [name]) if kind == "every" else [text]
    return tuple(found)


def _over_time(found: LocalSensitivity | GlobalSensitivity, rows: Sequence[Row]) -> Table:
    """Where each lever moves most, of many outputs."""
    best: dict[str, Row] = {}
    first = next(iter(rows[0].figures))

    def size(row: Row) -> float:
        return abs(float(np.nan_to_num(row.figures[first])))

    for row in rows:
        if row.lever not in best or size(row) > size(best[row.lever]):
            best[row.lever] = row
    order = sorted((r for r in best.values() if size(r) > 0.0), key=lambda r: -size(r))[:_SHOWN]
    cells = tuple((r.lever, f"{r.figures[first]:.3g}", r.output) for r in order)
    note = f"and {len(best) - len(order)} that do less or nothing" if len(best) > len(order) else ""
    title = f"where levers move most, of {len(found.outputs)} outputs"
    return Table(title, ("lever", first, "of"), cells, (1,), note)


def _drawing(
    found: LocalSensitivity | GlobalSensitivity, rows: Sequence[Row], run: Experiment
) -> Drawing:
    """Bars, or a map where one quantity is asked for at many samples."""
    names = tuple(lever.name for lever in found.levers)
    first, *rest = rows[0].figures
    half = rest[0] if rest and rest[0].startswith("+-") else None
    table = np.array([row.figures[first] for row in rows]).reshape(-1, len(names))
    measure = _MEASURES.get(first, f"{first} [unit of the output]")
    columns = {output.column for output in found.outputs}
    at = [output.row for output in found.outputs]
    if len(at) > _MANY and len(columns) == 1 and all(o.kind == "value" for o in found.outputs):
        what = run.columns[next(iter(columns))]
        return map_of(table.T, names, run.hours[at], measure, what)
    widths = np.array([row.figures[half] if half else np.nan for row in rows]).reshape(table.shape)
    panels = [
        Bars(output.name, measure, names, table[k], widths[k])
        for k, output in enumerate(found.outputs)
        if np.any(np.nan_to_num(table[k]) != 0.0)
    ]
    return tornado_of(panels[:_PANELS])


def _source(question: Question) -> str:
    culture = f"{question.process}, {question.days:g} d sampled every {question.every_h:g} h"
    return (
        f"{question.method} derivatives, {culture}"
        if question.method == "local"
        else (f"{question.method}, {culture}, seed {question.seed}")
    )


def studied_run(question: Question) -> Experiment:
    """The run that a question is about.

    Raises:
        ConfigError: If the culture or its mechanism is unknown, or does not fit.
    """
    wanted = question.levers or ()
    return run_of(
        read_process(question.process),
        question.mechanism,
        sample_hours(question.days, question.every_h),
        clone=question.clone,
        by_interval=any("@" in name or name == "every set-point" for name in wanted),
        controls=question.set_points,
    )


def write_rows(out: Path, rows: list[dict[str, Any]]) -> None:
    """Figures as a table or as JSON, by the ending; what is no number is empty or null."""
    clean = [
        {
            k: (None if isinstance(v, float) and not np.isfinite(v) else v)
            for k, v in row.items()
            if k != "figures"
        }
        for row in rows
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() == ".json":
        out.write_text(json.dumps(clean, indent=1) + "\n", encoding="utf-8")
        return
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(clean[0]))
        writer.writeheader()
        writer.writerows(clean)


def _draws(question: Question, run: Experiment) -> dict[str, np.ndarray]:
    """Draws of the posterior that are of levers of the question."""
    from .designing import posterior_of

    found = posterior_of(Path(question.posterior or ""), read_process(question.process))
    wanted = {lever.name for lever in choose_levers(run, question.levers)}
    return {n: found.pooled[:, k] for k, n in enumerate(found.names) if n in wanted} or {
        n: found.pooled[:, k] for k, n in enumerate(found.names)
    }


def _usual_output(run: Experiment, process: str) -> str:
    if "Titer" in run.columns:
        return "last Titer"
    biomass = read_process(process).biomass
    return f"last {biomass or run.columns[0]}"


def _rows(found: LocalSensitivity | GlobalSensitivity) -> list[Row]:
    rows = []
    for k, output in enumerate(found.outputs):
        for i, lever in enumerate(found.levers):
            if isinstance(found, LocalSensitivity):
                value = float(found.at[i])
                figures = {
                    "elasticity": float(found.elasticities[k, i]),
                    "gradient": float(found.gradients[k, i]),
                }
            else:
                value = float(np.mean(found.ranges[:, i]))
                figures = _figures(found, k, i)
                figures |= {"low": float(found.ranges[0, i]), "high": float(found.ranges[1, i])}
            rows.append(Row(output.name, lever.name, lever.unit, value, figures))
    return rows


def _figures(found: GlobalSensitivity, k: int, i: int) -> dict[str, float]:
    indices = found.found
    if isinstance(indices, SobolIndices):
        return {
            "total": float(indices.total[k, i]),
            "+-total": float(indices.total_half_width[k, i]),
            "first": float(indices.first[k, i]),
            "+-first": float(indices.first_half_width[k, i]),
        }
    if isinstance(indices, ShapleyEffects):
        return {
            "share": float(indices.effects[k, i]),
            "+-share": float(indices.half_width[k, i]),
        }
    return {
        "mu*": float(indices.mu_star[k, i]),
        "+-mu*": float(indices.mu_star_half_width[k, i]),
        "mu": float(indices.mu[k, i]),
        "sigma": float(indices.sigma[k, i]),
    }


def _title(found: LocalSensitivity | GlobalSensitivity, k: int) -> str:
    output = found.outputs[k]
    unit = shown_unit(output.unit)
    if isinstance(found, LocalSensitivity):
        return f"{output.name}: {found.values[k]:.4g} {unit}"
    if isinstance(found.found, SobolIndices | ShapleyEffects):
        return f"{output.name}: {found.found.mean[k]:.4g} +- {found.found.sd[k]:.3g} {unit}"
    return f"{output.name} [{unit} per range]"


def _table(rows: list[Row], title: str, each: bool) -> Table:
    """The strongest levers of one output; one that does nothing is left out."""
    first = next(iter(rows[0].figures))
    size = [abs(np.nan_to_num(row.figures[first])) for row in rows]
    order = [i for i in np.argsort(-np.asarray(size), kind="stable") if size[i] > 0.0]
    shown = order[: 2 * _SHOWN if each else _SHOWN]
    rest = len(rows) - len(shown)
    largest = max(size) or 1.0
    cells = []
    for i in shown:
        row = rows[i]
        bar = ("-" if row.figures[first] < 0.0 else "+") * max(1, round(_BAR * size[i] / largest))
        numbers = [f"{v:.3g}" for v in row.figures.values()]
        cells.append((row.lever, f"{row.value:.4g} {shown_unit(row.unit)}".strip(), *numbers, bar))
    heads = ("lever", "at", *rows[0].figures, "")
    note = f"and {rest} that do less or nothing" if rest else ""
    return Table(title, heads, tuple(cells), tuple(range(1, len(heads) - 1)), note)


def _remarks(found: LocalSensitivity | GlobalSensitivity) -> list[str]:
    if isinstance(found, GlobalSensitivity):
        return [*found.remarks(), *_pairs(found)]
    return [
        f"elasticity: per cent by which the output moves for one per cent of the lever. "
        f"{len(found.levers)} levers, {len(found.outputs)} output(s): {found.way} derivatives, the "
        f"cost of about {found.cost:.0f} runs."
    ]


def _pairs(found: GlobalSensitivity) -> list[str]:
    """The strongest pairs of every output, where pairs were asked for."""
    if not isinstance(found.found, SobolIndices) or found.found.second is None:
        return []
    widths = found.found.second_half_width
    said = []
    for k, output in enumerate(found.outputs):
        share = np.nan_to_num(found.found.second[k])
        sure = share - (0.0 if widths is None else np.nan_to_num(widths[k]))
        told = []
        for flat in np.argsort(-share, axis=None)[:3]:
            i, j = np.unravel_index(int(flat), share.shape)
            if sure[i, j] > 0.0:
                told.append(f"{found.levers[i].name} with {found.levers[j].name} {share[i, j]:.2f}")
        said.append(f"{output.name}, pairs: {'; '.join(told) or 'none beyond its interval'}.")
    return said
