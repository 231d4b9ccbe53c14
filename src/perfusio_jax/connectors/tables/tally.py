"""What was found in one column."""

from dataclasses import dataclass

from .labels import role_of
from .report import ColumnReport
from .vocabulary import OURS, Vocabulary


@dataclass(slots=True)
class Tally:
    """Counts over the cells of a column."""

    unit: str = ""
    """Unit of the column, in long format."""
    n_values: int = 0
    """Cells with a value."""
    n_missing: int = 0
    """Cells in which nothing was measured."""
    n_unusable: int = 0
    """Cells whose value counts as missing."""
    n_limits: int = 0
    """Values that are half the limit of an assay."""
    n_above: int = 0
    """Readings that are above a limit of the assay, which is known."""
    span: tuple[float, float] | None = None
    """Smallest and largest value [canonical unit]; None before the first."""
    remark: str = ""
    """The first that was odd."""

    def take(
        self,
        value: float | None,
        *,
        is_bad: bool,
        is_limit: bool,
        text: str,
        is_above: bool = False,
    ) -> None:
        """Count one cell.

        Args:
            value: What it says [canonical unit]; None if that counts as missing.
            is_bad: Whether there was something that cannot be used.
            is_limit: Whether it is the limit of an assay.
            text: What is odd about it; empty for nothing.
            is_above: Whether it is a limit that the value is above.
        """
        if value is None and is_above:
            self.n_above += 1
            return
        if value is None:
            self.n_unusable += is_bad
            self.n_missing += not is_bad
            self.remark = self.remark or text
            return
        self.n_values += 1
        self.n_limits += is_limit
        low, high = self.span or (value, value)
        self.span = (min(low, value), max(high, value))

    @property
    def has_any(self) -> bool:
        """Whether a cell tells something."""
        return self.n_values > 0 or self.n_above > 0

    def take_plain(self, value: float | None) -> None:
        """Count a cell with nothing odd about it.

        Args:
            value: What it says [canonical unit]; None if nothing was measured.
        """
        if value is None:
            self.n_missing += 1
            return
        self.n_values += 1
        span = self.span
        if span is None:
            self.span = (value, value)
        elif value < span[0]:
            self.span = (value, span[1])
        elif value > span[1]:
            self.span = (span[0], value)

    def report(
        self,
        label: str,
        name: str,
        units: tuple[str, str],
        *,
        remark: str,
        has_span: bool = True,
        words: Vocabulary = OURS,
    ) -> ColumnReport:
        """The counts as they are reported.

        Args:
            label: What the table calls the column.
            name: Canonical name; empty if it has none.
            units: That of the table, and the canonical one.
            remark: What is to be said of it.
            has_span: Whether its values are measurements.
            words: Names and units of columns.
        """
        span = self.span if has_span else None
        return ColumnReport(
            label,
            name,
            role_of(name, words),
            *units,
            self.n_values,
            self.n_missing,
            self.n_unusable,
            remark,
            span,
            words.doubt(name, *span) if span else "",
            self.n_limits,
            self.n_above,
        )
