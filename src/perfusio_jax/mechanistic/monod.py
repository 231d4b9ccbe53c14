"""The plainest mechanism there is: one organism, growth limited by substrate and by crowding."""

from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from perfusio_jax.mechanistic.mechanism import Mechanism, constant


class Monod(Mechanism):
    """Growth on one substrate; what else changes follows growth and cells.

    With biomass X, substrate S and further quantities C,

        mu  = mu_max S / (K_S + K_C X + S) exp(sum_j e_j z_j)
        q_S = -(a_S mu + b_S) S / (k_S + S)
        q_C = a_C mu + b_C - c_C C / (k_C + C) k_S' / (k_S' + S)

    The term `K_C X` is Contois's: growth slows down where many cells share little. The last term of
    a product is its uptake when the substrate is gone, as of ethanol or lactate; `k_S'` is `K_R`.
    Controls act on growth by the factor, with z their distance from the campaign's middle in units
    of its spread. What this is not able to say, the learned residual does.

    Reference:
        Monod (1949), Annu. Rev. Microbiol. 3, 371; Contois (1959), J. Gen. Microbiol. 21, 40;
        Luedeking and Piret (1959), J. Biochem. Microbiol. Technol. Eng. 1, 393.
    """

    k: Float[Array, " C"]
    """Level of each at which its uptake is halved [unit of C]."""
    pace: Float[Array, " C"]
    """How fast each usually changes [unit of C / unit of X / h]."""
    size: Float[Array, " C"]
    """What of each comes with a unit of biomass [unit of C / unit of X]."""
    middle: Float[Array, " M"]
    """Middle of each control."""
    spread: Float[Array, " M"]
    """Spread of each control."""
    biomass: str = eqx.field(static=True)
    """Name of X."""
    substrate: str = eqx.field(static=True)
    """Name of S."""
    others: tuple[str, ...] = eqx.field(static=True)
    """Names of the further quantities."""
    controls: tuple[str, ...] = eqx.field(static=True)
    """Names of the controls that may act on growth."""
    mu_max: Float[Array, ""] = constant(unit="1/h", log_sd=0.7)
    """Largest specific growth rate."""
    K_S: Float[Array, ""] = constant(unit="unit of S", log_sd=1.5)
    """Substrate at which growth is halved in a thin culture."""
    K_C: Float[Array, ""] = constant(unit="unit of S / unit of X", log_sd=1.5)
    """What a unit of biomass adds to it."""
    decay: Float[Array, ""] = constant(unit="1/h", log_sd=1.0)
    """Loss of biomass."""
    a_S: Float[Array, ""] = constant(unit="unit of S / unit of X", log_sd=0.7)
    """Substrate for a unit of growth."""
    b_S: Float[Array, ""] = constant(unit="unit of S / unit of X / h", log_sd=1.5)
    """Substrate for maintenance."""
    k_S: Float[Array, ""] = constant(unit="unit of S")
    """Substrate at which its uptake is halved."""
    K_R: Float[Array, ""] = constant(unit="unit of S", log_sd=1.5)
    """Substrate at which the uptake of products is halved."""
    a: Float[Array, " C"] = constant(unit="unit of C / unit of X", sd=1.0, of="others")
    """Of each further quantity for a unit of growth, in units of `size`."""
    b: Float[Array, " C"] = constant(unit="unit of C / unit of X / h", sd=1.0, of="others")
    """Of each by the cells that are there, in units of `pace`."""
    c: Float[Array, " C"] = constant(unit="unit of C / unit of X / h", log_sd=1.5, of="others")
    """Largest uptake of each, in units of `pace`."""
    e: Float[Array, " M"] = constant(unit="-", sd=0.3, of="controls")
    """Of each control on growth."""

    def rates(
        self, state: Mapping[str, Array], environment: Mapping[str, Array]
    ) -> Mapping[str, Array]:
        """Volumetric rates."""
        x, s = state[self.biomass], state[self.substrate]
        factor = jnp.ones(())
        if self.controls:
            u = jnp.stack([environment[name] for name in self.controls])
            factor = jnp.exp(jnp.clip(self.e @ ((u - self.middle) / self.spread), -3.0, 3.0))
        growth = self.mu_max * factor * s / (self.K_S + self.K_C * x + s + 1e-12)
        found = {
            self.biomass: (growth - self.decay) * x,
            self.substrate: -(self.a_S * growth + self.b_S * s / (self.k_S + s)) * x,
        }
        rest = self.K_R / (self.K_R + s)
        for i, name in enumerate(self.others):
            c = state[name]
            taken = self.c[i] * rest * c / (self.k[i] + c)
            made = self.size[i] * self.a[i] * growth + self.pace[i] * (self.b[i] - taken)
            found[name] = made * x
        return found
