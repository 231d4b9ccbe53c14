"""`perfusio-jax inspect`: what was understood of a file, column by column."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from perfusio_jax._core import HOURS_PER_DAY, ConfigError, DataError
from perfusio_jax._core.instants import parsed

from .filesystem import FilesystemStore
from .report import ColumnReport

if TYPE_CHECKING:
    from rich.console import Console


class Findings(NamedTuple):
    """What a file is good for."""

    has_samples: bool
    is_clear: bool
    """Whether besides everything was understood and nothing is odd enough to look at."""


def source(
    file: Path,
    column_map: Path | None = None,
    is_long: bool = False,
    sheet: str | None = None,
    time_zone: str | None = None,
    inoculated_at: str | None = None,
    **more: Any,
) -> FilesystemStore:
    """A file with the settings a command line gives.

    A last line without a line end is read: a file somebody hands over no longer grows.

    Raises:
        ConfigError: For settings that make no sense.
    """
    began = None
    if inoculated_at is not None:
        try:
            began = parsed(inoculated_at, "--inoculated-at")
        except DataError as error:
            raise ConfigError(str(error)) from None
    return FilesystemStore(
        file,
        wide_format=not is_long,
        column_map=column_map,
        sheet=sheet,
        time_zone=time_zone,
        inoculated_at=began,
        allow_unterminated=True,
        timeout_s=120.0,
        **more,
    )


def inspect_file(store: FilesystemStore, console: "Console") -> Findings:
    """Read a file and print what each of its columns was taken for.

    Args:
        store: The file with the settings it would be read with.
        console: Where to print.

    Returns:
        What it is good for.

    Raises:
        ConnectorError: If the file is not there.
        DataError: If it cannot be understood at all.
        UnitError: If a unit cannot be read or does not fit its column.
    """
    from rich.table import Table

    report = store.inspect()
    plausible = _plausible()
    text = f"{store.source_path}: {report.n_rows} rows, {len(report.columns)} columns"
    if report.separator:
        text += f"; {report.separator}-separated, decimal {report.decimal}"
    console.print(text, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for label in ("column", "read as", "unit"):
        table.add_column(label, overflow="fold", min_width=14 if label != "unit" else None)
    for label in ("values", "missing", "bad"):
        table.add_column(label, justify="right", no_wrap=True)
    table.add_column("from .. to", no_wrap=True)
    odd: list[str] = []
    remarks: list[str] = []
    for column in report.columns:
        doubt = _doubt(column, plausible)
        if doubt or column.role == "unknown" or column.n_unusable:
            odd.append(column.label)
        told = any(column.remark and column.remark in note for note in report.notes)
        said = [text for text in ("" if told else column.remark, doubt) if text]
        remarks += [f"{column.label}: {text}" for text in said]
        table.add_row(*_cells(column))
    if report.columns:
        console.print(table)
    notes = (f"note: {note}" for note in report.notes)
    for line in (*_extent(store), *remarks, *notes):
        console.print(line, soft_wrap=True)
    if odd:
        console.print(f"look at: {', '.join(odd)}", soft_wrap=True)
    has_samples = bool(store.runs())
    return Findings(has_samples, has_samples and not odd and not report.n_conflicts)


def _cells(column: ColumnReport) -> list[str]:
    unit = column.canonical_unit
    if column.unit and column.unit != unit:
        unit = f"{column.unit} -> {unit}"
    counts = (column.n_values, column.n_missing, column.n_unusable)
    return [
        column.label,
        f"{column.name} ({column.role})" if column.name else "nothing",
        unit,
        *(str(n) if unit else "" for n in counts),
        "" if column.span is None else "{:.5g} .. {:.5g}".format(*column.span),
    ]


def _plausible() -> Mapping[str, Any]:
    """Limits nobody's culture lies beyond, by species."""
    from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE

    return DEFAULT_AMBR250_DESIGN_SPACE.species_bounds


def _doubt(column: ColumnReport, plausible: Mapping[str, Any]) -> str:
    """Values no culture has are most often values in another unit."""
    bounds = plausible.get(column.name)
    if bounds is None or column.span is None:
        return ""
    low, high = column.span
    if bounds.lo <= low and high <= bounds.hi:
        return ""
    return (
        f"outside {bounds.lo:g} to {bounds.hi:g} {column.canonical_unit}: is the unit right? "
        "A row of units or a column map can say which it is"
    )


def _extent(store: FilesystemStore) -> list[str]:
    """Which days of which reactors there are."""
    groups = store.runs()
    lines = []
    for run_id, reactor_id, times in groups[:30]:
        names = [f"run {run_id}"] * bool(run_id) + [f"reactor {reactor_id}"] * bool(reactor_id)
        lines.append(
            f"{', '.join(names) or 'one reactor'}: {len(times)} samples from day "
            f"{times[0] / HOURS_PER_DAY:g} to {times[-1] / HOURS_PER_DAY:g}"
        )
    if len(groups) > 30:
        lines.append(f"and {len(groups) - 30} more reactors")
    return lines
