"""What the processes of one job tell each other, once, in the end."""

import numpy as np


def from_all(values: np.ndarray) -> list[np.ndarray]:
    """Arrays of all processes, in their order; their first axes may differ.

    They travel as whole numbers of 32 bits, so that no bit is lost where JAX computes in 32 bits.

    Args:
        values: What this process has.
    """
    from jax.experimental.multihost_utils import process_allgather

    values = np.ascontiguousarray(values)
    counts = np.ravel(process_allgather(np.array([values.shape[0]], np.int32)))
    most = int(counts.max())
    padded = np.zeros((most, *values.shape[1:]), values.dtype)
    padded[: values.shape[0]] = values
    words = np.asarray(process_allgather(padded.reshape(-1).view(np.uint32)))
    words = words.reshape(counts.size, -1)
    return [
        np.ascontiguousarray(row).view(values.dtype).reshape(padded.shape)[:count]
        for row, count in zip(words, counts, strict=True)
    ]
