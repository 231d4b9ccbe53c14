"""What in a training table deserves a word before a model is fitted to it."""

import warnings

import numpy as np

_OUTLIER = 1e3


class DataWarning(UserWarning):
    """Something in the data that a fit survives but its user should know."""


def find_problems(inputs: np.ndarray, targets: np.ndarray) -> list[str]:
    """Sentences on what is unusual about a table.

    Args:
        inputs: (N, D).
        targets: (N, T), NaN where missing.

    Returns:
        One sentence per finding; empty for ordinary data.
    """
    found: list[str] = []
    count = inputs.shape[0]
    if count == 1:
        found.append(
            "there is one row only: the scale of inputs and targets is set to one, and what is "
            "predicted is mostly the prior."
        )
    if count < 3 or inputs.ndim != 2 or targets.ndim != 2:
        return found
    for task in range(targets.shape[1]):
        seen = targets[:, task][np.isfinite(targets[:, task])]
        if seen.size < 3:
            continue
        centre = np.median(seen)
        deviation = np.abs(seen - centre)
        if np.max(deviation) <= 1e-12 * max(1.0, abs(float(centre))):
            found.append(
                f"target {task} is constant ({centre:.6g}): its scale is set to one, and its noise "
                "cannot be told from its signal."
            )
            continue
        typical = max(float(np.quantile(deviation, 0.75)), 1e-300)
        worst = int(np.argmax(deviation))
        if deviation[worst] > _OUTLIER * typical:
            found.append(
                f"target {task} holds an outlier, {seen[worst]:.6g} where "
                f"{centre:.6g} +/- {typical:.3g} is usual: check the unit, or remove it."
            )
    rows = np.column_stack([inputs, np.nan_to_num(targets, nan=np.inf)])
    repeated = count - np.unique(rows, axis=0).shape[0]
    if repeated:
        found.append(
            f"{repeated} of {count} rows repeat another one, targets included: each counts as a "
            "measurement of its own."
        )
    return found


def warn_about(inputs: np.ndarray, targets: np.ndarray) -> None:
    """Warn once per finding of `find_problems`."""
    for sentence in find_problems(np.asarray(inputs, float), np.asarray(targets, float)):
        warnings.warn(sentence, DataWarning, stacklevel=3)
