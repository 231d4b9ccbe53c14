"""Everything random in a set of roll-outs, drawn once."""

import dataclasses

import equinox as eqx
import jax
from jaxtyping import Array, Float

from perfusio_jax._core import Key
from perfusio_jax.gp import N_FREQUENCIES, GPPaths, draw_gp_paths
from perfusio_jax.hybrid.drawn import DrawnMechanisms, dealt
from perfusio_jax.hybrid.model import HybridStateSpaceModel


class Paths(eqx.Module):
    """Everything random in a set of roll-outs, drawn once."""

    functions: GPPaths | None
    """Residual functions, one per path; None without a GP."""
    process: Float[Array, "S K 9"]
    """Standard normal process noise per path and step [-]."""
    assay: Float[Array, "S K 12"]
    """Standard normal assay noise per path and step [-]."""
    constants: Float[Array, "S P"] | None = None
    """Standard normal numbers for the constants of each path's mechanism; None for one
    mechanism in all paths."""
    mechanisms: DrawnMechanisms | None = None
    """A mechanism for each path, in place of the model's; None for that of the model."""

    @property
    def n_paths(self) -> int:
        """Number of paths."""
        return self.process.shape[0]

    @property
    def n_steps(self) -> int:
        """Longest roll-out these draws serve [steps]."""
        return self.process.shape[1]


def draw_paths(
    model: HybridStateSpaceModel,
    n: int,
    *,
    key: Key,
    max_steps: int = 32,
    n_frequencies: int = N_FREQUENCIES,
) -> Paths:
    """Draw residual functions and noise for roll-outs.

    Args:
        model: Hybrid model.
        n: Number of paths.
        key: Random key.
        max_steps: Longest roll-out.
        n_frequencies: Fourier frequencies per block of paths.

    Returns:
        The draws; the same draws serve any state, any controls (common random numbers).
    """
    for_functions, for_noise = jax.random.split(key)
    constants = None
    if model.openness is not None:
        constants = jax.random.normal(jax.random.fold_in(key, 2), (n, model.openness.shape[0]))
    functions = None
    if model.gp is not None:
        functions = draw_gp_paths(model.gp, n, key=for_functions, n_frequencies=n_frequencies)
    size = model.layout.n
    noise = jax.random.normal(for_noise, (n, max_steps, size + len(model.layout.forecast)))
    return Paths(functions, noise[:, :, :size], noise[:, :, size:], constants)


def deal(paths: Paths, drawn: DrawnMechanisms | None) -> Paths:
    """Draws whose roll-outs have a mechanism for each path.

    Args:
        paths: Draws of `draw_paths`.
        drawn: Mechanisms; the paths take them in turn, and where there are fewer paths, the first
            of them. With None the paths stay as they are.
    """
    if drawn is None:
        return paths
    return dataclasses.replace(paths, mechanisms=dealt(drawn, paths.n_paths))
