"""What was understood of a file, column by column."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ColumnReport:
    """One column of a file."""

    label: str
    """As the file calls it."""
    name: str
    """As this library calls it; empty if it is not known."""
    role: str
    """What it is for: "species", "control", "time", "unknown" and so on."""
    unit: str
    """Unit the file states; empty if it states none."""
    canonical_unit: str
    """Unit after conversion; empty for text."""
    n_values: int
    """Cells with a usable number."""
    n_missing: int
    """Empty cells."""
    n_unusable: int
    """Cells with something that cannot be used; counted as missing."""
    remark: str = ""
    """What is odd about it."""
    span: tuple[float, float] | None = None
    """Lowest and highest value, in the canonical unit; `None` without one."""
    doubt: str = ""
    """What is implausible about its values; most often they are in another unit."""
    n_limits: int = 0
    """Values that were only said to be below a limit of the assay."""
    n_above: int = 0
    """Cells with a limit that the value is above."""


@dataclass(frozen=True, slots=True)
class ReadReport:
    """One file."""

    columns: tuple[ColumnReport, ...] = ()
    """Every column of the file, understood or not."""
    n_rows: int = 0
    """Rows read."""
    separator: str | None = None
    """Field separator by name, for text."""
    decimal: str = "point"
    """Decimal mark by name."""
    held_back: int | None = None
    """Line without a line end, not read."""
    n_duplicates: int = 0
    """Rows that repeat another."""
    n_corrected: int = 0
    """Values replaced by a later row."""
    n_conflicts: int = 0
    """Values that contradict an earlier row."""
    notes: tuple[str, ...] = ()
    """Everything that was odd, one sentence each."""
    species: tuple[ColumnReport, ...] = ()
    """Of a table in long format, each species it has, as if it were a column."""
    doubts: tuple[str, ...] = ()
    """What is implausible beyond one column: times, totals, vessels that are two."""
    n_usable: int = 0
    """Samples that do not contradict themselves."""

    @property
    def doubtful(self) -> tuple[str, ...]:
        """What should be looked at before a number of the file is believed."""
        columns = (*self.columns, *self.species)
        return (*(f"{c.label}: {c.doubt}" for c in columns if c.doubt), *self.doubts)

    @property
    def oddities(self) -> tuple[str, ...]:
        """What was not taken from the file as it stood, one sentence each."""
        lines = [note for note in self.notes if not note.endswith("as a row of units")]
        for column in self.columns:
            if column.role == "unknown":
                lines.append(f"column '{column.label}' is not known and not read. {column.remark}")
            elif column.remark == "no value in any row":
                lines.append(f"{column.name} has no value in any row")
            elif column.unit and column.canonical_unit and column.unit != column.canonical_unit:
                lines.append(
                    f"{column.name} converted from {column.unit} to {column.canonical_unit}"
                )
        return tuple(line.strip() for line in (*lines, *self.doubtful))

    @property
    def unknown(self) -> tuple[str, ...]:
        """Labels of columns nobody understood."""
        return tuple(column.label for column in self.columns if column.role == "unknown")

    @property
    def empty(self) -> tuple[str, ...]:
        """Names of measurements without a value in any row."""
        return tuple(c.name for c in self.columns if c.remark == "no value in any row")

    def text(self) -> str:
        """The report as a table for people."""
        lines = [f"{self.n_rows} rows, {len(self.columns)} columns"]
        if self.separator:
            lines[0] += f"; {self.separator}-separated, decimal {self.decimal}"
        rows: list[tuple[str, ...]] = [
            ("column", "read as", "unit", "values", "missing", "unusable", "")
        ]
        for column in self.columns:
            unit = column.canonical_unit
            if column.unit and column.unit != unit:
                unit = f"{column.unit} -> {unit}"
            name = column.name or "?"
            counts = (column.n_values, column.n_missing, column.n_unusable)
            cells = [str(count) if unit else "" for count in counts]
            rows.append((column.label, f"{name} ({column.role})", unit, *cells, column.remark))
        widths = [max(len(row[n]) for row in rows) for n in range(7)]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        doubts = (f"look at this: {doubt}" for doubt in self.doubtful)
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes), *doubts])
