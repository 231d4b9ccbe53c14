"""One run as the campaign table has it, without the container that holds it elsewhere."""

from collections.abc import Sequence
from typing import Any, Protocol, TypedDict

import numpy as np


class Run(Protocol):
    """What a run needs to have to become rows of the table; `states.Trajectory` has it."""

    run_id: str
    """Experiment."""
    reactor_id: str
    """Vessel."""
    clone_id: str
    """Cell line."""
    species_names: tuple[str, ...]
    """Columns of `species`."""
    control_names: tuple[str, ...]
    """Columns of `controls`."""
    auxiliary_names: tuple[str, ...]
    """Columns of `auxiliary`."""
    species: Any
    """Measured values `(T,n_species)`, canonical units; NaN if missing."""
    controls: Any
    """Set-points `(T,n_controls)`, canonical units."""
    stream_totals: Any
    """Volumes since the sample before `(T,n_streams)` [L], in the order of `STREAM_TOTALS`."""
    auxiliary: Any
    """Auxiliary tags `(T,n_tags)`, canonical units."""
    limits: Any
    """Limits of assays in the place of readings `(T,n_species,2)`; None if there is none."""
    volume_L: Any
    """Working volume `(T,)` [L]."""
    days: Any
    """Process days `(T,)` [d]."""
    times_h: Any
    """Times since inoculation `(T,)` [h]."""

    @property
    def n_days(self) -> int:
        """Number of samples."""
        ...


class RunFields(TypedDict):
    """What was read of one run; the arguments of `states.Trajectory`."""

    species: np.ndarray
    """Measured values `(T,n_species)`, canonical units; NaN if missing."""
    controls: np.ndarray
    """Set-points `(T,n_controls)`, canonical units."""
    volume_L: np.ndarray
    """Working volume `(T,)` [L]."""
    days: np.ndarray
    """Process days `(T,)` [d]."""
    species_names: Sequence[str]
    """Columns of `species`."""
    control_names: Sequence[str]
    """Columns of `controls`."""
    run_id: str
    """Experiment."""
    clone_id: str
    """Cell line."""
    reactor_id: str
    """Vessel."""
    times_h: np.ndarray
    """Times since inoculation `(T,)` [h]."""
    stream_totals: np.ndarray
    """Volumes since the sample before `(T,n_streams)` [L]."""
    auxiliary: np.ndarray
    """Auxiliary tags `(T,n_tags)`, canonical units."""
    auxiliary_names: Sequence[str]
    """Columns of `auxiliary`."""
    limits: np.ndarray | None
    """Limits of assays in the place of readings `(T,n_species,2)`, below and above; None if there
    is none."""
