"""Campaign tables as files: CSV with a row of units, or Parquet with a sidecar.

CSV: names in the first row, units in the second. Parquet (and CSV without that row) takes
units from `<name>.units.toml` beside it. Metadata of the runs goes into the same sidecar.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import tomli_w

from perfusio_jax._core import DataError
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.connectors.files.campaign_cells import (
    NoTableError,
    kind_of,
    read_cells,
    sidecar_path,
)
from perfusio_jax.connectors.files.campaign_parts import joined
from perfusio_jax.connectors.files.campaign_table import runs_of
from perfusio_jax.connectors.files.frame_doubts import rising_totals
from perfusio_jax.connectors.files.frame_report import FrameReport
from perfusio_jax.connectors.files.frame_run import RunFields
from perfusio_jax.connectors.files.frames import VOLUME_L, Campaign, campaign_to_frame
from perfusio_jax.connectors.files.limit_cells import of_one_kind
from perfusio_jax.connectors.files.parts import Tables, parts_of, title_of
from perfusio_jax.connectors.files.source_file import without_collecting
from perfusio_jax.connectors.tables.acting import TOLD, acting_from
from perfusio_jax.connectors.tables.file_rules import FileRules
from perfusio_jax.connectors.tables.totals import Totals
from perfusio_jax.connectors.tables.vocabulary import Vocabulary
from perfusio_jax.connectors.tables.writing import as_csv, as_workbook
from perfusio_jax.states import Trajectory, trajectories_of

if TYPE_CHECKING:
    from perfusio_jax.process import Process


def write_campaign(trajectories: Sequence[Trajectory], path: Path | str) -> None:
    """Write runs as a campaign table.

    Args:
        trajectories: Runs with distinct `run_id`.
        path: `.csv` or `.xlsx` (units in the second row) or `.parquet` (units in a sidecar).

    Raises:
        DataError: If the suffix is none of them, or the runs cannot be one table.
    """
    path = Path(path)
    kind = kind_of(path)
    frame = campaign_to_frame(trajectories)
    units = frame.attrs["units"]
    metadata = {run.run_id: dict(run.metadata) for run in trajectories if run.metadata}
    sidecar: dict[str, Any] = {"metadata": metadata} if metadata else {}
    if like_counters := rising_totals(trajectories):  # they are none, and would be taken for some
        sidecar["totals"] = dict.fromkeys(like_counters, "increments")
    if kind == "parquet":
        sidecar["units"] = units
        frame.attrs = {}
        of_one_kind(frame, list(units)).to_parquet(path, index=False)
    else:
        write_cells(frame, units, path)
    if sidecar:
        sidecar_path(path).write_text(tomli_w.dumps(sidecar), encoding="utf-8")
    else:
        sidecar_path(path).unlink(missing_ok=True)


def read_campaign(
    path: Tables,
    *,
    unknown: Literal["error", "ignore"] | None = None,
    volume_L: float | None = None,
    decimal: str | None = None,
    totals: Totals | None = None,
    process: "Process | None" = None,
    rules: FileRules | None = None,
) -> Campaign:
    """Read a campaign table.

    Separator (comma, semicolon, tab, bar), decimal comma and encoding are recognised and named in
    the report, as are what stands above, below and beside the table.

    Args:
        path: `.csv`, `.tsv`, `.txt`, `.parquet`, `.xlsx` or `.xlsm`; several files, or a folder of
            them, are one campaign. Where a file or a sheet has no column of runs, its name is the
            run.
        unknown: What to do with a column outside the contract: "error" by default, if `rules` do
            not say it.
        volume_L: Working volume [L] where the table has no such column; by default the process's,
            0.25 without one.
        decimal: "." or ","; by default from the sidecar, else found out.
        totals: "cumulative" where stream totals are counters, "increments" where they are the
            volumes since the sample before; by default from the sidecar, else told apart.
        rules: How the file is read: names of columns, sheet, time stamps and so on; `decimal` and
            `totals` beat it.
        process: The culture, where it is not the one our names are of. Columns named like what it
            measures and sets are read too, in its units; runs then have its measured quantities
            and its controls that the table has, in its order. Totals of its streams that are none
            of `STREAM_TOTALS` are auxiliary tags.

    Returns:
        Runs and report.

    Raises:
        DataError: If the file is missing, empty, malformed or breaks the contract, or has a control
            the process does not know.
        UnitError: If a unit cannot be read or does not fit its column.
    """
    runs, report, metadata = _read(
        path, unknown, volume_L, {"decimal": decimal, "totals": totals}, process, rules
    )
    with without_collecting():
        return Campaign(trajectories_of(runs, metadata), report)


def check_campaign(
    path: Tables,
    *,
    unknown: Literal["error", "ignore"],
    process: "Process | None" = None,
    rules: FileRules | None = None,
) -> Campaign:
    """What `read_campaign` says of a table, without the runs: of thousands they take longest.

    Args:
        path: As `read_campaign` takes it; so are the others.
        unknown: What to do with a column outside the contract.
        process: The culture.
        rules: How the file is read.

    Returns:
        The report, beside no run.

    Raises:
        DataError: As `read_campaign` does.
        UnitError: As `read_campaign` does.
    """
    return Campaign([], _read(path, unknown, None, {}, process, rules)[1])


def _read(
    path: Tables,
    unknown: Literal["error", "ignore"] | None,
    volume_L: float | None,
    changes: Mapping[str, str | None],
    process: "Process | None",
    rules: FileRules | None,
) -> tuple[list[RunFields], FrameReport, dict[str, Mapping[str, str]]]:
    """Fields of all runs, the report, and metadata by run."""
    rules = rules or FileRules()
    rules = rules.but(**{name: value for name, value in changes.items() if value is not None})
    if unknown is None:
        unknown = "ignore" if rules.unknown == "ignore" else "error"
    if unknown == "ignore":  # what a map calls by a name of its own is left out like other columns
        rules = rules.but(names_are_free=True)
    if volume_L is None:
        volume_L = VOLUME_L if process is None else process.volume_L
    words = Vocabulary.of(process)
    found: list[tuple[str, list[RunFields], FrameReport]] = []
    metadata: dict[str, Mapping[str, str]] = {}
    left_out: list[str] = []
    for part in parts_of(path, rules):
        try:
            with without_collecting():
                cells, sidecar = read_cells(part.path, part.rules, words, run_name=part.run_name)
                runs, report = runs_of(
                    cells.frame,
                    units=cells.units or None,
                    unknown=unknown,
                    volume_L=volume_L,
                    lines=cells.lines,
                    totals=cells.totals,
                    decimal=cells.decimal,
                    words=words,
                    keeps_early=part.rules.negative_time == "keep",
                )
        except NoTableError as error:
            if not part.may_be_none:
                raise DataError(f"{part.path}: {error}") from None
            left_out.append(f"{part.title} holds no table and is left out.")
            continue
        except DataError as error:
            raise DataError(f"{part.title or part.path}: {error}") from None
        except ValueError as error:  # UnitError and its kin keep their type
            raise type(error)(f"{part.title or part.path}: {error}") from None
        found.append((part.title, runs, replace(report, notes=cells.notes)))
        metadata |= sidecar.metadata
        del cells  # which are as large as the runs
    if not found:
        raise DataError(f"{title_of(path)}: {' '.join(left_out)}")
    runs, report = joined(found, words, rules.joins_within_h)
    del found
    if rules.set_points == "until":
        once = () if process is None else process.boluses
        for run in runs:
            run["controls"] = acting_from(run["controls"], run["control_names"], once)
        left_out.append(f"{TOLD}.")
    return runs, replace(report, notes=(*report.notes, *left_out)), metadata


def write_cells(frame: pd.DataFrame, units: Mapping[str, str], path: Path) -> None:
    """Write a table as text or as a workbook, by its name: names, units, rows."""
    names = [str(name) for name in frame.columns]
    told = [units.get(name, "") for name in names]
    rows = zip(*(frame[name].tolist() for name in names), strict=True)
    if kind_of(path) == "excel":
        path.write_bytes(as_workbook(names, told, rows))
        return
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    path.write_text(as_csv(names, told, rows, separator), encoding="utf-8", newline="")


def units_template(names: Sequence[str]) -> str:
    """A sidecar with the canonical unit of each column, to be edited.

    Args:
        names: Numeric columns of the table.

    Returns:
        TOML text.

    Raises:
        UnitError: If a column is not part of the contract.
    """
    return tomli_w.dumps({"units": {name: canonical_unit(name) for name in names}})
