"""Mass balances over named species and recorded runs, and the amounts streams carry."""

from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from perfusio_jax._core import (
    BALANCED,
    FORECAST_SPECIES,
    HOURS_PER_DAY,
    REGISTRY,
    ConfigError,
    DataError,
)

from .flows import (
    Flows,
    Number,
    align,
    columns_of_species,
    interval_flows,
    with_species_axis,
)
from .media import Medium
from .schemes import Scheme, balance_rates, balance_step
from .species import DEFAULT_SIEVING, Species, SpeciesRegistry, to_balanced
from .volumes import as_float, constant_volume_harvest_rate


class BalanceInfo(NamedTuple):
    """How the rates of a trajectory were obtained."""

    dt_h: Float[Array, " T-1"]
    """Lengths of the intervals [h]."""
    glucose_L: Float[Array, " T-1"]
    """Concentrated glucose fed in each [L]."""
    is_supply_estimated: Bool[Array, " T-1"]
    """True where set-points stood in for missing stream totals."""


class DiscreteMassBalance:
    """Mass balance over an ordered list of species.

    With `scheme="euler"` the streams are amount flows `u_f, u_b, u_p` [conc L/h], as in
    the paper. With `scheme="exponential"` they are volumetric flows (keyword `flows`),
    because an exact solution needs to know how the outflow follows the concentration.

    Args:
        species: Tracked species, in column order.
        dt_hours: Default step [h].
        scheme: "euler" or "exponential".

    Raises:
        ConfigError: For no species, a step that is not positive, or an unknown scheme.

    Examples:
        >>> import jax.numpy as jnp
        >>> reg = SpeciesRegistry.DEFAULT
        >>> bal = DiscreteMassBalance([reg["VCD"], reg["Glc"]], dt_hours=24.0)
        >>> c, u, V = jnp.ones((5, 2)), jnp.zeros((4, 2)), jnp.full((5,), 0.250)
        >>> R = bal.rates_from_observations(c, V, u, u, u)
        >>> again = bal.step(c[0], R[0], V[0], u[0], u[0], u[0], 24.0)
        >>> bool(jnp.allclose(again, c[1], atol=1e-10))
        True
    """

    def __init__(
        self, species: Sequence[Species], dt_hours: float = 24.0, *, scheme: Scheme = "euler"
    ) -> None:
        if len(species) == 0:
            raise ConfigError("a mass balance needs at least one species, none was given.")
        if not dt_hours > 0.0:
            raise ConfigError(f"dt_hours={dt_hours!r} must be positive [h].")
        if scheme not in get_args(Scheme):
            raise ConfigError(
                f"scheme {scheme!r} is unknown; allowed are {list(get_args(Scheme))}."
            )
        self._species = list(species)
        self.dt_hours = float(dt_hours)
        self.scheme: Scheme = scheme

    @property
    def species(self) -> list[Species]:
        """Tracked species in column order."""
        return list(self._species)

    def rates_from_observations(
        self,
        c: Float[Array, "T K"],
        V: Float[Array, " T"],
        u_f: Float[Array, "T-1 K"] | None = None,
        u_b: Float[Array, "T-1 K"] | None = None,
        u_p: Float[Array, "T-1 K"] | None = None,
        *,
        flows: Flows | None = None,
        dt: Number | None = None,
    ) -> Float[Array, "T-1 K"]:
        """Rates between consecutive samples.

        Args:
            c: Concentrations; NaN where missing.
            V: Volumes [L].
            u_f: Amount fed [conc L/h] (euler).
            u_b: Amount bled [conc L/h] (euler).
            u_p: Amount harvested [conc L/h] (euler).
            flows: Volumetric flows with leading axis T-1, instead of the three.
            dt: Step [h], one or one per interval; `dt_hours` if None.

        Raises:
            ValueError: If shapes disagree or the streams do not fit the scheme.
        """
        c, V = as_float(c), as_float(V)
        n = len(self._species)
        if c.ndim != 2 or c.shape[1] != n or c.shape[0] < 2:
            raise DataError(f"c must have shape (T >= 2, {n}), given {c.shape}.")
        if V.shape != c.shape[:1]:
            raise DataError(f"V must have shape {c.shape[:1]}, given {V.shape}.")
        streams = self._streams(u_f, u_b, u_p, flows)
        if isinstance(streams, tuple):
            for name, u in zip(("u_f", "u_b", "u_p"), streams, strict=True):
                if u.shape != (c.shape[0] - 1, n):
                    raise DataError(
                        f"{name} must have shape {(c.shape[0] - 1, n)}, given {u.shape}."
                    )
        step = as_float(self.dt_hours if dt is None else dt)
        if step.shape not in ((), (c.shape[0] - 1,)):
            raise DataError(f"dt must be one number or {c.shape[0] - 1}, given {step.shape}.")
        flow = self._as_flows(streams)
        return balance_rates(c[:-1], c[1:], V[:-1], V[1:], flow, step, scheme=self.scheme)

    def step(
        self,
        c_t: Float[Array, "*b K"],
        R_t: Float[Array, "*b K"],
        V_t: Number,
        u_f: Float[Array, "*b K"] | None = None,
        u_b: Float[Array, "*b K"] | None = None,
        u_p: Float[Array, "*b K"] | None = None,
        dt: Number | None = None,
        *,
        V_next: Number | None = None,
        flows: Flows | None = None,
    ) -> Float[Array, "*b K"]:
        """Concentrations one step later.

        Args:
            c_t: Concentrations now.
            R_t: Volumetric rates [conc/h].
            V_t: Volume now [L].
            u_f: Amount fed [conc L/h] (euler).
            u_b: Amount bled [conc L/h] (euler).
            u_p: Amount harvested [conc L/h] (euler).
            dt: Step [h]; `dt_hours` if None.
            V_next: Volume at the end [L]; constant volume if None.
            flows: Volumetric flows, instead of the three.

        Raises:
            ValueError: If the streams do not fit the scheme.
        """
        streams = self._as_flows(self._streams(u_f, u_b, u_p, flows))
        V1 = V_t if V_next is None else V_next
        step = self.dt_hours if dt is None else dt
        c_t, R_t = as_float(c_t), as_float(R_t)
        return balance_step(c_t, R_t, V_t, V1, streams, step, scheme=self.scheme)

    def rates_from_trajectory(
        self,
        traj: Any,
        species_indices: Sequence[int] | None = None,
        *,
        medium: Medium | None = None,
        return_info: bool = False,
    ) -> Array | tuple[Array, BalanceInfo]:
        """Rates of a recorded run, from its controls or, better, its stream totals.

        The column `Via` yields the rate of dead cells, which viability is derived from
        (its own change is not a balance). Columns that no stream carries (VCV, Diam) are
        NaN. Species of this balance bring their own sieving coefficients.

        Args:
            traj: The run (`Trajectory`).
            species_indices: Columns of `traj.species` wanted; all if None.
            medium: Medium of the run; the default one if None.
            return_info: Also return a `BalanceInfo`, which flags intervals whose supply
                had to be estimated from set-points.

        Raises:
            DataError: If a column index is out of range, `Via` comes without `VCD`, or
                the run gives no consistent flows.
        """
        names = list(traj.species_names)
        wanted = list(range(len(names))) if species_indices is None else list(species_indices)
        outside = [i for i in wanted if not 0 <= i < len(names)]
        if outside:
            raise DataError(f"species_indices {outside} are outside 0..{len(names) - 1}.")
        chosen = [names[i] for i in wanted]
        recorded = interval_flows(traj, medium)
        columns = columns_of_species(chosen)
        supply = jnp.stack(
            [
                jnp.zeros_like(recorded.dt_h) if k is None else recorded.flows.supply[:, k]
                for k in columns
            ],
            axis=-1,
        )
        known = {s.short_name: s.sieving for s in self._species}
        registry = SpeciesRegistry.DEFAULT
        sieving = [
            known[n] if n in known else (registry[n].sieving if n in registry else 1.0)
            for n in chosen
        ]
        c = self._balanced_columns(traj, chosen)
        base = recorded.flows
        flows = Flows(supply, base.inflow, base.bleed, base.harvest, jnp.asarray(sieving, float))
        V = as_float(traj.volume_L)
        rates = balance_rates(
            c[:-1], c[1:], V[:-1], V[1:], flows, recorded.dt_h, scheme=self.scheme
        )
        if not return_info:
            return rates
        info = BalanceInfo(recorded.dt_h, recorded.glucose_L, recorded.is_supply_estimated)
        return rates, info

    def _balanced_columns(self, traj: Any, chosen: list[str]) -> Array:
        names = list(traj.species_names)
        values = as_float(traj.species)
        columns = []
        for name in chosen:
            column = values[:, names.index(name)]
            if name in ("VCV", "Diam"):
                column = jnp.full_like(column, jnp.nan)
            elif name == "Via":
                if "VCD" not in names:
                    raise DataError("the rate behind 'Via' needs the column 'VCD' as well.")
                face = jnp.zeros((column.shape[0], len(BALANCED)), column.dtype)
                face = face.at[:, 0].set(values[:, names.index("VCD")]).at[:, 1].set(column)
                column = to_balanced(face)[:, 1]
            columns.append(column)
        return jnp.stack(columns, axis=-1)

    def _streams(
        self, u_f: Array | None, u_b: Array | None, u_p: Array | None, flows: Flows | None
    ) -> Flows | tuple[Array, Array, Array]:
        given = [u is not None for u in (u_f, u_b, u_p)]
        if flows is not None:
            if any(given):
                raise ConfigError("give either u_f, u_b, u_p or flows=..., not both.")
            return flows
        if self.scheme != "euler":
            raise ConfigError(
                "the exponential scheme needs volumetric flows: pass flows=Flows(...) instead of "
                "the amounts u_f, u_b, u_p, or build the balance with scheme='euler'."
            )
        if u_f is None or u_b is None or u_p is None:
            raise ConfigError("the euler scheme needs u_f, u_b and u_p, or flows=Flows(...).")
        return as_float(u_f), as_float(u_b), as_float(u_p)

    def _as_flows(self, streams: Flows | tuple[Array, Array, Array]) -> Flows:
        """Amount flows as a pure supply: what leaves is a negative supply in euler."""
        if isinstance(streams, Flows):
            return streams
        u_f, u_b, u_p = streams
        zero = jnp.zeros(())
        return Flows(u_f - u_b - u_p, zero, zero, zero, jnp.zeros(len(self._species)))


class FlowRateCalculator:
    """Amount flows of the streams of constant-volume perfusion.

    The harvest carries `sieving` times the concentration: 0 for what the filter holds
    back, 1 for what passes. (A factor `1 - sieving`, as the formula is sometimes printed,
    would send the cells out and keep the metabolites in.) Flows are per hour at rates
    given in vessel volumes per 24 h, whatever the sampling interval.

    Args:
        volume_L: Working volume [L].
        dt_hours: Sampling interval [h]; kept for reference, no flow depends on it.
        species: Species of the columns, for their own sieving coefficients. If None, the
            library's layouts of 9, 12 and 13 columns are recognised.

    Raises:
        ConfigError: If volume or interval is not positive.
    """

    def __init__(
        self,
        volume_L: float = 0.25,
        dt_hours: float = 24.0,
        *,
        species: Sequence[Species] | None = None,
    ) -> None:
        if not volume_L > 0.0 or not dt_hours > 0.0:
            raise ConfigError(
                f"volume_L={volume_L!r} [L] and dt_hours={dt_hours!r} [h] must be positive."
            )
        self.volume_L = float(volume_L)
        self.dt_hours = float(dt_hours)
        self._sieving = None if species is None else tuple(s.sieving for s in species)

    def _own_sieving(self, n_columns: int) -> tuple[float, ...]:
        if self._sieving is not None:
            known = {len(self._sieving): self._sieving}
        else:
            registry = SpeciesRegistry.DEFAULT
            known = {
                len(names): tuple(float(v) for v in registry.sieving(names))
                for names in (FORECAST_SPECIES, REGISTRY)
            }
            known[len(BALANCED)] = DEFAULT_SIEVING
        if n_columns not in known:
            raise ConfigError(
                f"no sieving coefficients are known for {n_columns} columns (known: "
                f"{sorted(known)}); pass sieving_coeffs or build with species=[...]."
            )
        return known[n_columns]

    def compute_flows(
        self,
        c: Float[Array, "*b K"],
        perfusion_rate_vvd: Number,
        bleed_rate_vvd: Number,
        c_feed: Float[Array, "*b K"] | None = None,
        sieving_coeffs: Float[Array, " K"] | None = None,
    ) -> tuple[Float[Array, "*b K"], Float[Array, "*b K"], Float[Array, "*b K"]]:
        """Amounts fed, bled and harvested, `(u_f, u_b, u_p)` [conc L/h].

        Args:
            c: Concentrations in the reactor.
            perfusion_rate_vvd: Perfusion rate [vessel volumes per day].
            bleed_rate_vvd: Bleed rate [vessel volumes per day].
            c_feed: Concentrations of the feed; nothing but water if None.
            sieving_coeffs: Part that passes the filter [-]; the species' own if None.

        Raises:
            ConfigError: If the bleed exceeds the perfusion, or no sieving is known.
        """
        c = as_float(c)
        per_hour = self.volume_L / HOURS_PER_DAY
        harvest_vvd = constant_volume_harvest_rate(perfusion_rate_vvd, bleed_rate_vvd)
        if sieving_coeffs is None:
            sieving_coeffs = jnp.asarray(self._own_sieving(c.shape[-1]), float)
        sieving = align(sieving_coeffs, c.ndim)
        perfusion = with_species_axis(perfusion_rate_vvd, c.ndim) * per_hour
        bleed = with_species_axis(bleed_rate_vvd, c.ndim) * per_hour
        harvest = with_species_axis(harvest_vvd, c.ndim) * per_hour
        feed = jnp.zeros_like(c) if c_feed is None else align(as_float(c_feed), c.ndim)
        return perfusion * feed, bleed * c, harvest * sieving * c
