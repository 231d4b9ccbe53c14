"""`perfusio-jax rates`: growth, rates, yields and cell hours of every run, with standard errors."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import DataError
from perfusio_jax._core.text import cut, shown_unit
from perfusio_jax.chemistry import glucose_pump_rate
from perfusio_jax.connectors import completed, read_culture
from perfusio_jax.connectors.files.checking import never_in_a_row
from perfusio_jax.connectors.files.parts import Tables
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.process import CHO_PERFUSION, Derived, Number, Process, derive, mean_of
from perfusio_jax.process.recorded import PumpLaw
from perfusio_jax.states import Trajectory

KEY_NUMBERS: Final = ("growth_net", "death", "q_Glc", "q_Lac", "q_Amm", "q_Titer", "CSPR")
"""Numbers of CHO perfusion shown for people; tables have all."""

_MOST_SHOWN: Final = 6
_PAD: Final = 32


def _cho_pump(glucose: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The law of the glucose feed [L/h/L]; padded, so that runs of any length share a program."""
    spare = -glucose.size % _PAD
    padded = (np.pad(v, (0, spare), constant_values=np.nan) for v in (glucose, target))
    found = glucose_pump_rate(*(jnp.asarray(v) for v in padded))
    return np.asarray(found, float)[: glucose.size]


_PUMPS: Final[Mapping[str, PumpLaw]] = {"glucose_feed": _cho_pump}


def derived_of(process: Process | None, run: Trajectory) -> Derived:
    """Derived numbers of one run.

    Args:
        process: Its culture; None for CHO perfusion, whose pump law stands in where the glucose
            feed was not totalised.
        run: The run.

    Raises:
        DataError: If it has fewer than two samples, or lacks a control.
    """
    if process is None:
        return derive(CHO_PERFUSION, run, _PUMPS)
    return derive(process, run)


def rates_of_table(
    campaign: Tables,
    out: Path,
    *,
    fill_down: bool = False,
    culture: str | None = None,
    console: Any,
    rules: FileRules | None = None,
) -> list[Derived]:
    """Derive the numbers of every run of a table, write them, and tell the means.

    Args:
        campaign: The table, several, or a folder of them.
        out: CSV file to write.
        fill_down: Whether a blank set-point means that the one before it stayed.
        culture: Which culture; see `read_culture`.
        console: Where to print.
        rules: How the table is read.

    Returns:
        The numbers, run by run.

    Raises:
        DataError: If the table cannot be read, or no run has two samples.
    """
    table = read_culture(campaign, culture, rules)
    runs = completed(table, fill_down=fill_down, console=console)
    short = [run.run_id for run in runs if run.n_days < 2]
    if short:
        console.print(f"one sample only, so nothing to derive: {_listed(short)}", soft_wrap=True)
    found = [derived_of(table.process, run) for run in runs if run.n_days >= 2]
    if not found:
        raise DataError("no run has two samples; what happened between two cannot be told.")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_derived(found, out)
    console.print("means over the run ± standard error:")
    for shown in means_tables(found, console.width):
        console.print(shown)
    sparse = never_in_a_row(runs, carried_of(table.process))
    if sparse:
        console.print(sparse, soft_wrap=True)
    estimated = [d.run_id for d in found if not d.is_recorded.all()]
    if estimated and table_has_streams(table.process):
        console.print(
            f"flows are those of the set-points where no totals were recorded: "
            f"{_listed(estimated)}",
            soft_wrap=True,
        )
    console.print(
        "errors are those of the assays alone; flows and compositions count as exact.",
        soft_wrap=True,
    )
    console.print(f"table: {out}", soft_wrap=True)
    return found


def carried_of(process: Process | None) -> list[str]:
    """What has rates in a culture, and is measured."""
    of = CHO_PERFUSION if process is None else process
    return [name for name in of.carried if of.quantity(name).is_measured]


def table_has_streams(process: Process | None) -> bool:
    """Whether anything flows in a culture."""
    return process is None or bool(process.streams)


def write_derived(found: Sequence[Derived], out: Path) -> None:
    """Write derived numbers as a table: a row per interval, a second row of units.

    Args:
        found: Numbers, run by run.
        out: CSV file. Each number has a column, and one ending in `_se` for its standard error;
            what is not known is empty, and what nobody knows of any run has no column.
    """
    columns: dict[str, str] = {}
    for derived in found:
        for number in derived.numbers:
            if np.isfinite(number.values).any():
                columns.setdefault(number.name, number.unit)
    ids = ("run_id", "reactor_id", "clone_id")
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        both = [name for column in columns for name in (column, f"{column}_se")]
        units = [unit for unit in columns.values() for _ in range(2)]
        writer.writerow((*ids, "from_h", "to_h", "flows", *both))
        writer.writerow(("", "", "", "h", "h", "", *units))
        for derived in found:
            by_name = {number.name: number for number in derived.numbers}
            for i in range(derived.from_h.size):
                cells: list[str] = []
                for name in columns:
                    number = by_name.get(name)
                    pair = (math.nan,) * 2 if number is None else (number.values, number.errors)
                    cells += [_cell(v if np.ndim(v) == 0 else v[i]) for v in pair]  # pyright: ignore
                flows = "recorded" if derived.is_recorded[i] else "set-points"
                hours = (f"{derived.from_h[i]:.10g}", f"{derived.to_h[i]:.10g}")
                row = (derived.run_id, derived.reactor_id, derived.clone_id, *hours, flows)
                writer.writerow((*row, *cells))


def shown_numbers(found: Sequence[Derived]) -> list[Number]:
    """Numbers of the first run that people look at first."""
    numbers = [n for d in found[:1] for n in d.numbers if not n.name.startswith(("rate_", "yield"))]
    known = [n for n in numbers if n.name in KEY_NUMBERS]
    usable = [n for n in numbers if not np.isnan(n.shared).all() or n.values.size < 2]
    chosen = known if len(known) > 2 else usable
    return [n for n in chosen if any(_is_known(d, n.name) for d in found)][:_MOST_SHOWN]


def mean_text(derived: Derived, name: str) -> str:
    """Mean of a number over a run with its standard error; "–" where nothing is known."""
    if not _is_known(derived, name):
        return "–"
    mean, error = mean_of(derived.number(name), derived.to_h - derived.from_h)
    return with_error(mean, error)


def with_error(value: float, error: float) -> str:
    """A value with its standard error, both to two figures of the error."""
    if not math.isfinite(value):
        return "–"
    if not (math.isfinite(error) and error > 0.0):
        return f"{value:.3g}"
    places = max(0, 1 - math.floor(math.log10(error)))
    if places > 6 or abs(value) >= 1e5:
        return f"{value:.3g} ± {error:.2g}"
    return f"{value:.{places}f} ± {error:.{places}f}"


def means_tables(found: Sequence[Derived], width: int) -> list[Any]:
    """Means over each run, in tables of as many numbers as a screen has room for.

    Args:
        found: Numbers, run by run.
        width: Characters there is room for.
    """
    from rich import box
    from rich.table import Table

    names = [cut(d.run_id, 24) for d in found]
    room, tables = 0, []
    for number in shown_numbers(found):
        header = f"{number.name} [{shown_unit(number.unit)}]"
        cells = [mean_text(d, number.name) for d in found]
        needed = max(len(text) for text in (header, *cells)) + 3
        if not tables or needed > room:
            tables.append(([], []))
            room = width - max(len(name) for name in (*names, "run")) - 6
        tables[-1][0].append(header)
        tables[-1][1].append(cells)
        room -= needed
    out = []
    for headers, columns in tables:
        table = Table(box=box.SIMPLE)
        table.add_column("run", no_wrap=True)
        for header in headers:
            table.add_column(header, justify="right", no_wrap=True)
        for name, *row in zip(names, *columns, strict=True):
            table.add_row(name, *row)
        out.append(table)
    return out


def _is_known(derived: Derived, name: str) -> bool:
    return any(n.name == name and np.isfinite(n.values).any() for n in derived.numbers)


def _cell(value: float) -> str:
    return f"{value:.6g}" if np.isfinite(value) else ""


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(cut(name, 40) for name in names[:5]) + more
