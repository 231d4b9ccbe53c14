"""The four control cases: references, starts, uncertainty, and what a training is given."""

from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Float

from perfusio_jax._core import ConfigError
from perfusio_jax.rl.consortium import Consortium, Uncertainty
from perfusio_jax.rl.environment import EnvParams
from perfusio_jax.rl.plants import MAX_LIGHT, ConsortiumEnv, consortium_params
from perfusio_jax.rl.process_env import ProcessEnv
from perfusio_jax.rl.returns import TrackingReturn, quadratic, screening
from perfusio_jax.rl.settings import TrainSettings

SETPOINTS: Final = ((1.0, 6.0), (2.0, 5.0), (3.0, 4.0), (3.5, 3.5))
"""Biomasses [g/L] of case 1; given."""
CYCLES: Final = (1.0, 2.0)
"""Cycles of the trajectories over the horizon; that there are two is given, the numbers chosen."""
UNCERTAIN: Final = 0.07
"""Relative deviation of initial states and synthesis rates in cases 3 and 4; given."""
N_STEPS: Final = 18
"""Actions; given."""
EPOCHS: Final = {1: 9600, 2: 9900, 3: 9600, 4: 9900}
"""Most epochs per case: 300 more for trajectories is given, 9600 chosen."""


class Scenario(NamedTuple):
    """One line of the publication's table of results."""

    name: str
    case: int
    start: str
    reference: Float[np.ndarray, "T 2"]
    """At k = 0 ... N [g/L]."""
    uncertainty: float
    """Relative deviation [-]."""
    published: tuple[float, float]
    """Total NAAE with the saturation and with the quadratic return."""
    epochs: int
    scheme: str
    """Weights and K of the saturation return, by the screening's name; given for each."""


def setpoint_reference(pair: tuple[float, float], n_steps: int = N_STEPS) -> np.ndarray:
    """Constant references."""
    return np.tile(np.asarray(pair, float), (n_steps + 1, 1))


def trajectory_reference(cycles: float, n_steps: int = N_STEPS) -> np.ndarray:
    """Sinusoids between 3 and 4, in opposite phase, from where the cultures start.

    Strain 1 starts at 3 and rises, strain 2 at 4 and falls (the start is given; that both
    references begin there, and so their phases, is inferred).
    """
    wave = np.cos(2.0 * np.pi * cycles * np.arange(n_steps + 1) / n_steps)
    return np.stack([3.5 - 0.5 * wave, 3.5 + 0.5 * wave], axis=1)


TUNED: Final = {
    "saturation": {"learning_rate": 0.003, "floor": 0.1},
    "quadratic": {"learning_rate": 0.006, "floor": 0.1},
}
"""Rate and floor of the spread for either return: the best of twelve pairs by the sum of errors
on three scenarios and two seeds (`python -m benchmarks.science.rl_studies tune`)."""


def _name(pair: tuple[float, float]) -> str:
    return f"setpoint {pair[0]:g}, {pair[1]:g}"


_PUBLISHED: Final = ((0.394, 0.450), (0.393, 0.444), (0.391, 0.468), (0.394, 0.446))
_SCHEMES: Final = ("1_sr_3_tr__9", "1_sr_2_tr__27", "1_sr_1_tr__27", "1_sr_1_tr__27")
EQUAL: Final = "1_sr_1_tr__27"
"""Scheme of all cases but the first: stages and end weigh the same, K = 27."""
SCENARIOS: Final[tuple[Scenario, ...]] = (
    *(
        Scenario(_name(p), 1, "setpoint", setpoint_reference(p), 0.0, table, EPOCHS[1], scheme)
        for p, table, scheme in zip(SETPOINTS, _PUBLISHED, _SCHEMES, strict=True)
    ),
    *(
        Scenario(name, 2, "trajectory", trajectory_reference(c), 0.0, table, EPOCHS[2], EQUAL)
        for name, c, table in zip(
            ("trajectory 1", "trajectory 2"), CYCLES, ((0.007, 1.467), (0.009, 1.465)), strict=True
        )
    ),
    Scenario(
        "setpoint 3.5, 3.5 uncertain",
        3,
        "setpoint",
        setpoint_reference((3.5, 3.5)),
        UNCERTAIN,
        (0.430, 0.506),
        EPOCHS[3],
        EQUAL,
    ),
    Scenario(
        "trajectory 1 uncertain",
        4,
        "trajectory",
        trajectory_reference(1.0),
        UNCERTAIN,
        (0.032, 1.465),
        EPOCHS[4],
        EQUAL,
    ),
)
"""The eight lines of the publication's table 2, in its order. Which set-points and which
trajectory the uncertain cases use is inferred from the figures' captions."""


def scenarios_of(case: int) -> tuple[Scenario, ...]:
    """Scenarios of a control case.

    Args:
        case: 1 (set-points), 2 (trajectories), 3 and 4 (one of each, uncertain).

    Returns:
        In the order of the publication's table.

    Raises:
        ConfigError: If there is no such case.
    """
    chosen = tuple(s for s in SCENARIOS if s.case == case)
    if not chosen:
        raise ConfigError(f"control case {case!r} is unknown; there are 1, 2, 3 and 4.")
    return chosen


def returns_of(scenario: Scenario) -> dict[str, TrackingReturn]:
    """The two returns that every case compares: the publication's best scheme, and the square.

    Args:
        scenario: Line of the table; its `scheme` chooses weights and K of the first.

    Returns:
        Under `saturation` and `quadratic`, as `train_settings` calls them.
    """
    return {"saturation": screening()[scenario.scheme], "quadratic": quadratic()}


def train_settings(scenario: Scenario, returns: str, **changes: Any) -> TrainSettings:
    """Settings of a training of a scenario.

    Args:
        scenario: The scenario.
        returns: "saturation" or "quadratic": each has a rate and a floor of its own.
        **changes: Fields of `TrainSettings` that are to be others; patience is half the epochs
            and at least 100 if not given.

    Returns:
        The settings, in single precision.

    Raises:
        ConfigError: If the return is unknown, or a setting cannot be used.
    """
    if returns not in TUNED:
        raise ConfigError(f"return {returns!r} is unknown; choose from {', '.join(TUNED)}.")
    given: dict[str, Any] = {"n_epochs": scenario.epochs, "is_single": True, **TUNED[returns]}
    given |= changes
    return TrainSettings(**{"patience": max(given["n_epochs"] // 2, 100), **given})


def build(
    scenario: Scenario,
    *,
    plant: Consortium | None = None,
    max_light: float | tuple[float, float] = MAX_LIGHT,
    step_h: float = 1.0,
    uncertainty: float | None = None,
) -> tuple[ProcessEnv, EnvParams]:
    """Environment and parameters of a scenario.

    Args:
        scenario: From `SCENARIOS`, or one of your own.
        plant: Constants; the default ones if not given.
        max_light: Upper bound of the lights [W/m^2].
        step_h: Length of a step [h].
        uncertainty: Relative deviation in place of the scenario's [-].

    Returns:
        The environment and its parameters.

    Raises:
        ConfigError: If something cannot be used.
    """
    level = scenario.uncertainty if uncertainty is None else uncertainty
    if not 0.0 <= level < 1.0 / 3.0:
        raise ConfigError(f"an uncertainty of {level} is not possible; 0 to 0.33 is.")
    params = consortium_params(
        scenario.reference,
        start=scenario.start,
        plant=plant,
        uncertainty=Uncertainty(initial=level, synthesis=level),
        max_light=max_light,
        step_h=step_h,
    )
    return ConsortiumEnv(n_steps=scenario.reference.shape[0] - 1), params
