"""The frozen problems."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import ConfigError
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax.mechanistic import Mechanism, constant
from perfusio_jax.mechanistic.consortium import ConsortiumKinetics
from perfusio_jax.process import CHO_PERFUSION, CONSORTIUM, Control, Process, Quantity, Stream
from perfusio_jax.simulator import virtual_plant, virtual_reactor
from perfusio_jax.study.cho import cho_experiment
from perfusio_jax.study.described import described_experiment
from perfusio_jax.study.experiment import Experiment

from .problem import FrozenProblem


class _Secretion(Mechanism):
    """Foreign protein of a secreting yeast.

    Reference:
        Park, Ramirez (1988), AIChE Journal 34, 1550-1558.
    """

    fastest: jax.Array = constant(21.87, unit="g/L/h", log_sd=0.1)

    def rates(self, state: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, Any]:
        """Rates of cells, secreted and whole protein, and substrate [g/L/h]."""
        s, x = state["S"], state["X"]
        growth = self.fastest * s / ((s + 0.4) * (s + 62.5))
        made = s * jnp.exp(-5.0 * s) / (0.1 + s)
        secreted = 4.75 * growth / (0.12 + growth) * (state["T"] - state["P"])
        return {"X": growth * x, "P": secreted, "T": made * x, "S": -7.3 * growth * x}


def _cho() -> Experiment:
    return cho_experiment(virtual_reactor("CloneX"), 24.0 * np.arange(15))


def _fed_batch() -> Experiment:
    names = ("X", "P", "T", "S")
    process = Process(
        name="fedbatch_v1",
        volume_L=1.0,
        biomass="X",
        quantities=tuple(Quantity(name=n, unit="g/L", hi=1000.0, cv=0.05) for n in names),
        controls=(Control(name="feed", unit="L/h", role="flow", lo=0.0, hi=2.0, default=0.5),),
        streams=(Stream(name="feed", direction="in", flow="feed", carries={"S": 20.0}),),
    )
    plant = virtual_plant(process, _Secretion(), rtol=1e-6, atol=1e-8, max_steps=512)
    start = {"X": 1.0, "P": 0.0, "T": 0.0, "S": 5.0}
    return described_experiment(plant, 3.0 * np.arange(6), start=start)


def _consortium() -> Experiment:
    plant = virtual_plant(CONSORTIUM, ConsortiumKinetics(), rtol=1e-6, atol=1e-9, max_steps=1024)
    start = {"glucose": 100.0, "biomass_1": 0.2, "biomass_2": 0.1, "lysine": 1.7, "leucine": 0.18}
    return described_experiment(plant, 6.0 * np.arange(4), start=start)


CHO_V1: Final = FrozenProblem(
    name="cho-v1",
    text="perfusion of CHO cells, 14 days: most titre, viability never below 95 %",
    experiment=_cho,
    levers=tuple(control.name for control in CHO_PERFUSION.controls),
    lower=(0.5, 0.05, 2.0, 35.0, 700.0, 0.0),
    upper=(2.0, 0.30, 8.0, 37.5, 1050.0, 5.0),
    outputs=("last Titer", "min Via"),
    targets=(),
    limits=((1, 95.0, 1.0),),
    cv=(0.05, 0.005),
    batch=8,
    n_rounds=5,
    seeds=tuple(range(10)),
    usual=757.80,
    optimum=1624.64,
    best=(0.5, 0.05, 2.1873, 35.1221, 784.368, 5.0),
    digest="ee4f90822eb98f44",
)

CONSORTIUM_V1: Final = FrozenProblem(
    name="consortium-v1",
    text="two strains under light, six hours each: both at 3.5 g/L after 12 and after 18 hours",
    experiment=_consortium,
    levers=("blue@1", "blue@2", "blue@3", "red@1", "red@2", "red@3"),
    lower=(0.02,) * 6,
    upper=(1.5,) * 6,
    outputs=(
        "biomass_1 at 12 h",
        "biomass_2 at 12 h",
        "biomass_1 at 18 h",
        "biomass_2 at 18 h",
    ),
    targets=(3.5, 3.5, 3.5, 3.5),
    limits=(),
    cv=(0.05,) * 4,
    batch=4,
    n_rounds=10,
    seeds=tuple(range(10)),
    usual=-6.594,
    optimum=-0.26476,
    best=(0.0638751, 0.0212984, 0.0202271, 0.400179, 0.386002, 0.132045),
    digest="4efdcf0085849661",
)

FEDBATCH_V1: Final = FrozenProblem(
    name="fedbatch-v1",
    text="protein of a secreting yeast, fed in five pieces of 3 h: most of it, at most 14 L",
    experiment=_fed_batch,
    levers=tuple(f"feed@{k}" for k in range(1, 6)),
    lower=(0.0,) * 5,
    upper=(2.0,) * 5,
    outputs=("amount of P", "last volume_L"),
    targets=(),
    limits=((1, 14.0, -1.0),),
    cv=(0.05, 0.0),
    batch=4,
    n_rounds=10,
    seeds=tuple(range(10)),
    usual=18.685,
    optimum=31.516,
    best=(0.210241, 0.543122, 1.47042, 0.711984, 0.879498),
    digest="07f38637eacb6848",
)

FROZEN: Final[Mapping[str, FrozenProblem]] = MappingProxyType(
    {problem.name: problem for problem in (CHO_V1, CONSORTIUM_V1, FEDBATCH_V1)}
)
"""All of them, by name."""


def frozen_problem(name: str) -> FrozenProblem:
    """A frozen problem by its name.

    Raises:
        ConfigError: If there is none of that name.
    """
    if name not in FROZEN:
        raise ConfigError(
            f"{name!r} is no frozen problem{did_you_mean([name], FROZEN)}; there are "
            f"{', '.join(FROZEN)}."
        )
    return FROZEN[name]
