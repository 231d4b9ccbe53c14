"""Orders every array relies on."""

import pytest

from perfusio_jax import _core
from perfusio_jax._core import (
    AUXILIARY_TAGS,
    BALANCED,
    CONTROL_NAMES,
    FORECAST_SPECIES,
    REGISTRY,
    STATE_ORDER,
    STREAM_TOTALS,
    BioreactorConnector,
)
from perfusio_jax._core.units import CANONICAL_UNITS


def test_orders_are_fixed():
    assert " ".join(CONTROL_NAMES) == (
        "perfusion_rate bleed_rate glucose_setpoint temperature agitation pyruvate_feed"
    )
    assert " ".join(REGISTRY) == "VCD VCV Via Diam Glc Gln Glu Lac Amm Pyr Titer DCD Lys"
    assert " ".join(STATE_ORDER) == "VCD Via Glc Gln Glu Lac Amm Pyr Titer"
    assert " ".join(BALANCED) == "Xv Xd Glc Gln Glu Lac Amm Pyr Titer"
    assert REGISTRY[:12] == FORECAST_SPECIES
    assert BALANCED[2:] == STATE_ORDER[2:]


@pytest.mark.parametrize(
    "names", [CONTROL_NAMES, REGISTRY, BALANCED, STREAM_TOTALS, AUXILIARY_TAGS]
)
def test_every_column_has_a_unit(names):
    assert len(set(names)) == len(names)
    assert set(names) <= set(CANONICAL_UNITS)


def test_the_protocol_recognises_a_connector():
    class Whole:
        async def is_alive(self): ...
        async def read_sample(self, day): ...
        async def write_setpoints(self, setpoints): ...

    class Deaf:
        async def is_alive(self): ...
        async def read_sample(self, day): ...

    assert isinstance(Whole(), BioreactorConnector)
    assert not isinstance(Deaf(), BioreactorConnector)


def test_errors_are_one_tree():
    assert issubclass(_core.UnitError, _core.ConfigError)
    assert issubclass(_core.RunLockedError, _core.ConnectorError)
    for error, builtin in (
        (_core.ConfigError, ValueError),
        (_core.DataError, ValueError),
        (_core.PrecisionError, RuntimeError),
        (_core.SimulationError, RuntimeError),
        (_core.ConnectorError, RuntimeError),
        (_core.GateError, PermissionError),
        (_core.AuditError, Exception),
        (_core.StopRun, Exception),
    ):
        assert issubclass(error, _core.PerfusioError) and issubclass(error, builtin)
