"""What the twin is measured against: the fixed recipe and classical bleed control.

Baselines run on the true plant, see the same noisy samples and start from the same start-up.
Their gains are tuned on the true plant too, over several noise seeds, which is more than an
engineer could do.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from perfusio_jax._core import CONTROL_NAMES, REGISTRY
from perfusio_jax._core.programs import compiled
from perfusio_jax.chemistry import bleed_trigger, cell_volume_fraction
from perfusio_jax.mechanistic import CHOKinetics, Method, Reactor, Tolerances, integrate, make_plan
from perfusio_jax.simulator import NoiseModel, apply_noise, observe

_BLEED = CONTROL_NAMES.index("bleed_rate")


class Loop(NamedTuple):
    """Setting every controller meets."""

    reactor: Reactor
    initial: Float[Array, " 10"]
    recipe: Float[Array, " 6"]
    """Set-points of the start-up, and of whatever a controller does not move."""
    target: float
    """VCV [%]."""
    startup_days: int
    n_days: int
    """Last day [d]."""
    bleed_bounds: tuple[float, float]
    noise: NoiseModel


@compiled
def _one_day(
    reactor: Reactor, states: Float[Array, "L 10"], controls: Float[Array, "L 6"]
) -> Float[Array, "L 10"]:
    plan = make_plan(reactor, states, controls, jnp.full(1, 24.0))
    return integrate(reactor, plan, Tolerances(), Method()).concentrations[:, 1]


@compiled
def _vcv_read(
    kinetics: CHOKinetics,
    states: Float[Array, "L 10"],
    cv: Float[Array, " 13"],
    lost: Float[Array, ""],
    keys: Array,
) -> tuple[Float[Array, " L"], Float[Array, " L"]]:
    """True and measured VCV; NaN where the count or the diameter is lost."""
    true = observe(kinetics, states)

    def read(row: Array, key: Array) -> Array:
        return apply_noise(row, cv, lost, key=key, via_index=REGISTRY.index("Via"))

    noisy = jax.vmap(read)(true, keys)
    vcd, diameter = (noisy[:, REGISTRY.index(n)] for n in ("VCD", "Diam"))
    return true[:, REGISTRY.index("VCV")], cell_volume_fraction(vcd, diameter)


Controller = Callable[[np.ndarray, np.ndarray, dict[str, np.ndarray]], np.ndarray]
"""(measured VCV per lane, bleed per lane, memory) -> new bleed per lane."""


def run_lanes(loop: Loop, controller: Controller, keys: Array) -> tuple[np.ndarray, np.ndarray]:
    """Run one controller in every lane, each lane with its own noise key.

    Args:
        loop: Plant, target, days.
        controller: Maps measured VCV to bleed.
        keys: Noise key per lane.

    Returns:
        True VCV (lanes, days + 1) [%] and bleed applied (lanes, days) [vvd].
    """
    lanes = keys.shape[0]
    states = jnp.broadcast_to(loop.initial, (lanes, loop.initial.shape[0]))
    controls = np.tile(np.asarray(loop.recipe), (lanes, 1))
    memory: dict[str, np.ndarray] = {}
    vcv, bleed = [], []
    last = np.full(lanes, np.nan)
    cv, lost = loop.noise.cv_array(REGISTRY), jnp.asarray(loop.noise.missing_prob)
    for day in range(loop.n_days + 1):
        today = jax.vmap(lambda k, d=day: jax.random.fold_in(k, d))(keys)
        true, measured = _vcv_read(loop.reactor.kinetics, states, cv, lost, today)
        vcv.append(np.asarray(true))
        last = np.where(np.isfinite(measured), measured, last)  # lost: act on the reading before
        if day >= loop.startup_days:
            known = np.where(np.isfinite(last), last, loop.target)
            wanted = controller(known, controls[:, _BLEED], memory)
            controls[:, _BLEED] = np.clip(wanted, *loop.bleed_bounds)
        if day < loop.n_days:
            bleed.append(controls[:, _BLEED].copy())
            states = _one_day(loop.reactor, states, jnp.asarray(controls))
    return np.stack(vcv, axis=1), np.stack(bleed, axis=1)


def fixed(_: np.ndarray, bleed: np.ndarray, __: dict[str, np.ndarray]) -> np.ndarray:
    """Leave everything as it is."""
    return bleed


def proportional(gain: np.ndarray, loop: Loop) -> Controller:
    """`bleed_trigger` with one gain per lane."""

    def act(vcv: np.ndarray, _: np.ndarray, __: dict[str, np.ndarray]) -> np.ndarray:
        low, high = loop.bleed_bounds
        return np.asarray(
            bleed_trigger(jnp.asarray(vcv), loop.target, low, high, k_bleed=jnp.asarray(gain))
        )

    return act


def proportional_integral(gain: np.ndarray, hours: np.ndarray, loop: Loop) -> Controller:
    """PI control of the bleed in velocity form, which cannot wind up."""

    def act(vcv: np.ndarray, bleed: np.ndarray, memory: dict[str, np.ndarray]) -> np.ndarray:
        error = vcv - loop.target
        before = memory.get("error", error)
        memory["error"] = error
        return bleed + gain * (error - before + error * 24.0 / hours)

    return act


def tracking_error(loop: Loop, vcv: np.ndarray) -> np.ndarray:
    """Mean absolute deviation from the target after start-up, along the last axis [%]."""
    return np.mean(np.abs(vcv[..., loop.startup_days + 1 :] - loop.target), axis=-1)


LANES = 32
"""Lanes per call, so that tuning and running share one compiled size."""


def run_baselines(
    loop: Loop, *, key: Array, sample_key: Array
) -> Mapping[str, dict[str, np.ndarray]]:
    """Tune and run the baselines.

    Args:
        loop: Plant, target, days.
        key: Key of the tuning runs.
        sample_key: Noise of the run that counts.

    Returns:
        Per baseline: true `vcv`, `bleed` and the tuned `gain` (and `hours`).
    """
    keys = jnp.tile(jax.random.split(key, 4), LANES // 4)
    p_gains = np.repeat(np.geomspace(0.005, 0.5, LANES // 4), 4)
    vcv, _ = run_lanes(loop, proportional(p_gains, loop), keys)
    score = tracking_error(loop, vcv).reshape(-1, 4).mean(axis=1)
    p_best = float(p_gains.reshape(-1, 4)[score.argmin(), 0])

    best, pi_best = np.inf, (0.02, 96.0)
    for hours in (24.0, 72.0, 240.0, 1000.0):
        gains = np.repeat(np.geomspace(0.003, 0.1, LANES // 4), 4)
        spread = np.full(LANES, hours)
        vcv, _ = run_lanes(loop, proportional_integral(gains, spread, loop), keys)
        score = tracking_error(loop, vcv).reshape(-1, 4).mean(axis=1)
        if score.min() < best:
            best = float(score.min())
            pi_best = (float(gains.reshape(-1, 4)[score.argmin(), 0]), hours)

    same = jnp.tile(sample_key[None], LANES)
    out: dict[str, dict[str, np.ndarray]] = {}
    for name, controller, settings in (
        ("centre", fixed, {}),
        ("bleed_trigger", proportional(np.full(LANES, p_best), loop), {"gain": p_best}),
        (
            "bleed_pi",
            proportional_integral(np.full(LANES, pi_best[0]), np.full(LANES, pi_best[1]), loop),
            {"gain": pi_best[0], "hours": pi_best[1]},
        ),
    ):
        vcv, bleed = run_lanes(loop, controller, same)
        out[name] = {
            "vcv": vcv[0],
            "bleed": bleed[0],
            **{k: np.asarray(v) for k, v in settings.items()},
        }
    return out
