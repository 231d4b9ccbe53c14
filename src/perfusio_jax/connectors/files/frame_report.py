"""What was understood of a table of runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class FrameReport:
    """What was understood of a table and what had to be done to it."""

    n_rows: int
    """Samples read."""
    run_ids: tuple[str, ...]
    """Runs, in order of first appearance."""
    columns: tuple[str, ...]
    """Columns used."""
    ignored: tuple[str, ...] = ()
    """Unknown columns left out because the caller said so."""
    converted: Mapping[str, str] = field(default_factory=dict)
    """Columns whose numbers changed on conversion, with both units."""
    assumed: Mapping[str, str] = field(default_factory=dict)
    """What the table did not say, with the value taken instead."""
    reordered: tuple[str, ...] = ()
    """Runs whose rows were not contiguous and in order of time."""
    empty: tuple[str, ...] = ()
    """Columns without a single value."""
    missing: Mapping[str, int] = field(default_factory=dict)
    """Number of missing values per column that has some and is not empty."""
    warnings: tuple[str, ...] = ()
    """Values that are legal but strange."""
    notes: tuple[str, ...] = ()
    """How the file was read (separator, decimal mark)."""

    def __str__(self) -> str:
        lines = [f"{self.n_rows} samples of {len(self.run_ids)} run(s)."]
        lines += self.notes
        if self.ignored:
            lines.append(f"left out unknown columns: {', '.join(self.ignored)}.")
        lines += [f"converted {name}: {how}." for name, how in self.converted.items()]
        lines += [f"assumed {name}: {value}." for name, value in self.assumed.items()]
        if self.reordered:
            lines.append(f"put rows in order of time: {', '.join(self.reordered)}.")
        if self.empty:
            lines.append(f"columns without any value: {', '.join(self.empty)}.")
        if self.missing:
            counts = ", ".join(f"{name} {count}" for name, count in self.missing.items())
            lines.append(f"missing values: {counts}.")
        return "\n".join([*lines, *self.warnings])
