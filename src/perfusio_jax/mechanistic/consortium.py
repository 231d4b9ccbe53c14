"""Two strains kept in check by light, as a mechanism of the process `consortium`.

Both eat glucose; each lacks an amino acid that light lets it make, blue for strain 1 (lysine), red
for strain 2 (leucine). What an amino acid does stays in the cell: it is a level, which growth
dilutes and no stream carries. With biomass b [g/L], glucose s [mmol/L] and amino acid a [mmol/L of
cell]:

    r_s = - sum_i Y_i mu_i b_i            r_b = mu b
    da/dt = c q h(I) - (mu + d) a         mu = mu_max  s / (s + k_s)  a / (a + k_a)
    h(I) = I^n / (I^n + K^n)

Reference:
    Espinel-Rios et al. (2025), Computers and Chemical Engineering, 109297. Which constants are
    printed there and which had to be chosen is said in `rl.PARAMETERS`.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .mechanism import Mechanism, constant

# Defaults of fields cannot be arrays, which are mutable; the field's converter makes them.
# pyright: reportArgumentType=false

_SOURCE = "Espinel-Rios et al. (2025)"


class ConsortiumKinetics(Mechanism):
    """Growth of two strains on glucose, each held by an amino acid that light induces."""

    max_growth: Float[Array, ""] = constant(0.982, unit="1/h", log_sd=0.2, source=_SOURCE)
    half_saturation: Float[Array, ""] = constant(2.9e-4, unit="mmol/L", source="chosen")
    uptake_per_biomass: Float[Array, " 2"] = constant(
        (10.18, 10.18), unit="mmol/g", log_sd=0.1, source=_SOURCE
    )
    synthesis: Float[Array, " 2"] = constant(
        (0.337, 0.036), unit="mmol/(g h)", log_sd=0.3, source=_SOURCE
    )
    amino_half_saturation: Float[Array, " 2"] = constant(
        (1.7, 0.182), unit="mmol/L", log_sd=0.3, source=_SOURCE
    )
    conversion: Float[Array, ""] = constant(1100.0, unit="g/L", source=_SOURCE)
    degradation: Float[Array, " 2"] = constant((0.25, 0.25), unit="1/h", source="chosen")
    light_half_saturation: Float[Array, " 2"] = constant(
        (1.052, 1.34), unit="W/m^2", source=_SOURCE
    )
    light_exponent: Float[Array, " 2"] = constant((2.0, 4.865), unit="1", source=_SOURCE)

    def rates(
        self, state: Mapping[str, Array], environment: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Rates of glucose, both biomasses and both amino acids [their unit / h]."""
        amino = jnp.stack([state["lysine"], state["leucine"]])
        biomass = jnp.stack([state["biomass_1"], state["biomass_2"]])
        light = jnp.stack([environment["blue"], environment["red"]])
        glucose = state["glucose"]
        share = amino / (amino + self.amino_half_saturation)
        growth = self.max_growth * glucose / (glucose + self.half_saturation) * share
        # through the logarithm, so that darkness has a derivative (zero) for every exponent
        is_dark = light <= 0.0
        ratio = jnp.where(is_dark, 1.0, light) / self.light_half_saturation
        induced = jnp.where(is_dark, 0.0, jax.nn.sigmoid(self.light_exponent * jnp.log(ratio)))
        made = self.conversion * self.synthesis * induced
        turned = made - (growth + self.degradation) * amino
        grown = growth * biomass
        return {
            "glucose": -jnp.sum(self.uptake_per_biomass * grown),
            "biomass_1": grown[0],
            "biomass_2": grown[1],
            "lysine": turned[0],
            "leucine": turned[1],
        }
