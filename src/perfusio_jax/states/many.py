"""Many runs at once, as a table of a campaign has them.

`Trajectory(...)` puts each of its arrays on the device by a call of its own, which takes longer
than all else there is to do for a run of a few samples. Here all arrays of all runs go in one call,
and what is alike in several runs, as the days of a design are, goes once: arrays never change.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import jax
import numpy as np

from perfusio_jax._core import STREAM_TOTALS
from perfusio_jax._core.frozen import FrozenStrings
from perfusio_jax.states.checks import unique_names
from perfusio_jax.states.trajectory import Trajectory

_WHOLE: Final = ("days",)
_NUMBERS: Final = ("species", "controls", "volume_L", "times_h", "stream_totals", "auxiliary")
_NAMES: Final = ("species_names", "control_names", "auxiliary_names")
_IDS: Final = ("run_id", "clone_id", "reactor_id")


def trajectories_of(
    runs: Sequence[Mapping[str, Any]], metadata: Mapping[str, Mapping[str, str]] | None = None
) -> list[Trajectory]:
    """Runs of fields that are NumPy arrays.

    Args:
        runs: What `Trajectory` takes by name, all of it but for metadata. The arrays are not to be
            changed afterwards.
        metadata: Free text by key, by `run_id`.

    Returns:
        What `Trajectory(**run)` would be of each.

    Raises:
        DataError: As `Trajectory` does.
    """
    about = metadata or {}
    hosts: list[np.ndarray] = []
    number: dict[tuple[Any, ...], int] = {}
    kinds = {**dict.fromkeys(_NUMBERS, float), **dict.fromkeys(_WHOLE, int), "limits": float}
    kinds = {name: jax.dtypes.canonicalize_dtype(kind) for name, kind in kinds.items()}
    placed: list[dict[str, int | None]] = []
    for run in runs:
        cast = {n: np.ascontiguousarray(run[n], k) for n, k in kinds.items() if run[n] is not None}
        if not _is_sound(run, cast):
            Trajectory(**run)  # which says what is wrong
        at: dict[str, int | None] = {"limits": None}
        for name, host in cast.items():
            key = (host.shape, host.dtype, hashlib.blake2b(host.data, digest_size=16).digest())
            at[name] = number.setdefault(key, len(number))
            if at[name] == len(hosts):
                hosts.append(host)
        placed.append(at)
    arrays = jax.device_put(hosts)
    names: dict[tuple[str, ...], tuple[str, ...]] = {}
    found = []
    for run, at in zip(runs, placed, strict=True):
        made = object.__new__(Trajectory)  # as JAX makes them of their leaves
        for name, k in at.items():
            object.__setattr__(made, name, None if k is None else arrays[k])
        for name in _NAMES:
            given = tuple(run[name])
            if given not in names:
                names[given] = unique_names(given, name)
            object.__setattr__(made, name, names[given])
        for name in _IDS:
            object.__setattr__(made, name, str(run[name]))
        strings = FrozenStrings(about.get(run["run_id"]))
        object.__setattr__(made, "metadata", strings)
        found.append(made)
    return found


def _is_sound(run: Mapping[str, Any], cast: Mapping[str, np.ndarray]) -> bool:
    """Whether `Trajectory` would take a run."""
    n, n_species = len(cast["species"]), len(run["species_names"])
    shapes = {
        "species": (n, n_species),
        "controls": (n, len(run["control_names"])),
        "stream_totals": (n, len(STREAM_TOTALS)),
        "auxiliary": (n, len(run["auxiliary_names"])),
        "limits": (n, n_species, 2),
        **dict.fromkeys(("volume_L", "days", "times_h"), (n,)),
    }
    if any(array.shape != shapes[name] for name, array in cast.items()):
        return False
    times = cast["times_h"]
    is_timely = bool(np.isfinite(times).all()) and bool((times[1:] > times[:-1]).all())
    return is_timely and bool((cast["volume_L"] > 0).all())
