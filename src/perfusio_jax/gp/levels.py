"""Quantile levels and the names under which results hold them."""

from collections.abc import Iterable
from decimal import Decimal

from perfusio_jax._core import DataError


def level_key(level: float) -> str:
    """Name of a quantile in a result: `q` and the percentage, all its digits.

    Args:
        level: Probability.

    Returns:
        The name; two levels never share one.

    Examples:
        >>> level_key(0.1), level_key(0.025), level_key(0.02), level_key(0.999)
        ('q10', 'q2.5', 'q2', 'q99.9')
    """
    # the shortest decimal that is this number, moved by two places without rounding
    percent = f"{Decimal(repr(float(level))).scaleb(2):f}"
    return f"q{percent.rstrip('0').rstrip('.') if '.' in percent else percent}"


def level_keys(levels: Iterable[float]) -> dict[str, float]:
    """Levels by their names.

    Args:
        levels: Probabilities.

    Returns:
        Level per name, in order.

    Raises:
        DataError: If one is not between 0 and 1.
    """
    given = [float(level) for level in levels]
    for level in given:
        if not 0.0 < level < 1.0:
            raise DataError(f"quantile level {level}; allowed are numbers between 0 and 1.")
    return {level_key(level): level for level in given}
