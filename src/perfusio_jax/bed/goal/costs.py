"""What a run costs: a price for the run, its days, its place, its assays and its medium."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import Array, ConfigError, Float, Scalar
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax.bed.goal.run_flows import ways, ways_in
from perfusio_jax.process import Process

PRICES = ("run", "day", "slot", "assay", "medium")
"""Prices that any culture has."""
TURNAROUND = "turnaround_days"
REACTORS = "reactors"
"""How many runs there is room for at once."""


class Costs(eqx.Module):
    """Prices, all in one currency; make them with `read_costs`."""

    run: Scalar
    """Of a run."""
    day: Scalar
    """Of a day of culture."""
    slot: Scalar
    """Of a reactor's place for a day, turnaround included."""
    assay: Scalar
    """Of analysing a sample; one is taken at the start and one after every step."""
    litre: Float[Array, " S"]
    """Of a litre by each of `run_flows.ways`; 0 for what leaves."""
    turnaround_days: Scalar
    """Days between two runs in one place [d]."""
    reactors: int | None = eqx.field(static=True, default=None)
    """Runs that there is room for at once; None: for all."""

    def campaign_days(self, n_runs: int, days: float) -> float:
        """Time that runs take, one after the other where there is no room for all [d].

        Args:
            n_runs: Number of runs.
            days: Length of each [d].
        """
        rounds = 1 if self.reactors is None else -(-n_runs // self.reactors)
        return rounds * days + (rounds - 1) * float(self.turnaround_days)

    def of_run(
        self, process: Process, litres: Float[Array, "... H S"], days: float, n_steps: int
    ) -> Float[Array, "..."]:
        """Cost of a run.

        Args:
            process: The culture.
            litres: What flows by each of `run_flows.ways` within each step [L].
            days: Length of the run [d].
            n_steps: Steps between its samples.
        """
        held = self.run + self.day * days + self.slot * (days + self.turnaround_days)
        held = held + self.assay * (n_steps + 1)
        return held + jnp.sum(litres @ self.litre, axis=-1) if ways(process) else held


def read_costs(told: Mapping[str, Any], process: Process) -> Costs:
    """Prices from a table.

    Args:
        told: Prices `run`, `day`, `slot`, `assay`, `medium` (a litre of whatever enters and has no
            price of its own) or by the name of a stream that enters, or of a bolus that says what
            it brings; `turnaround_days` between runs, and how many `reactors` there are.
        process: The culture.

    Raises:
        ConfigError: If a key is unknown, or a price is no number or below zero.

    Example:
        >>> from perfusio_jax.process import MONOD_CHEMOSTAT
        >>> costs = read_costs({"day": 40.0, "feed": 2.0}, MONOD_CHEMOSTAT)
        >>> float(costs.of_run(MONOD_CHEMOSTAT, jnp.ones((3, 2)), 3.0, 3))
        126.0
    """
    enters = ways_in(process)
    known = (*PRICES, TURNAROUND, REACTORS, *enters)
    prices: dict[str, float] = {}
    for name, value in told.items():
        if name not in known:
            raise ConfigError(
                f"cost {name!r} is unknown{did_you_mean([name], known)}; there are "
                f"{', '.join(known)}."
            )
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not (np.isfinite(value) and value >= 0.0):
            raise ConfigError(f"cost {name} = {value!r}; a number is needed, not below 0.")
        if name == REACTORS and not (value >= 1 and value == int(value)):
            raise ConfigError(f"{REACTORS} = {value!r}; a whole number is needed, at least 1.")
        prices[name] = float(value)
    litre = [
        prices.get(name, prices.get("medium", 0.0)) if name in enters else 0.0
        for name in ways(process)
    ]
    fields = {name: jnp.asarray(prices.get(name, 0.0)) for name in ("run", "day", "slot", "assay")}
    return Costs(
        **fields,
        litre=jnp.asarray(litre, float),
        turnaround_days=jnp.asarray(prices.get(TURNAROUND, 0.0)),
        reactors=int(prices[REACTORS]) if REACTORS in prices else None,
    )
