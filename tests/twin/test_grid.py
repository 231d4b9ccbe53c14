"""The grid of a device: what is asked for, what is held, and what a read-back means."""

import math
import struct
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax._core import ConfigError, ConnectorError
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.twin.decision.checks import implausible
from perfusio_jax.twin.decision.gate import GateRequest, GateVerdict, gate
from perfusio_jax.twin.decision.gate_limits import GateLimits
from perfusio_jax.twin.decision.grid import (
    Grid,
    as_held,
    exact,
    is_number,
    nearest,
    no_finer,
    rounded,
)
from perfusio_jax.twin.loop.session import Session
from perfusio_jax.twin.loop.settings import LoopSettings
from perfusio_jax.twin.loop.writer import SetpointWriter

SPACE = DEFAULT_AMBR250_DESIGN_SPACE
LIMITS = GateLimits.from_design_space(SPACE)


def float32(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


def on_device(limits: GateLimits, setpoints: dict) -> dict:
    bounds = {n: (limits.lower[n], limits.upper[n]) for n in limits.lower}
    return rounded(setpoints, limits.grids, bounds, limits.balance)


def judge(setpoints: dict, read_back: dict, limits: GateLimits = LIMITS, hours=24.0) -> GateVerdict:
    return gate(
        GateRequest(
            setpoints=setpoints,
            read_back={**SPACE.centre, **read_back},
            data_age_h=1.0,
            hours_without_good_data=0.0,
            allow_write=True,
            armed=True,
            hours_since_write=hours,
        ),
        limits,
    )


@pytest.mark.parametrize(
    ("name", "asked", "step", "held"),
    [("agitation", 905.0, 10.0, 910.0), ("perfusion_rate", 1.23, 0.05, 1.25)],
)
def test_a_coarser_device_is_told_and_gets_what_it_can_hold(name, asked, step, held):
    limits = GateLimits.from_design_space(SPACE, device_steps={name: step})
    assert on_device(limits, {name: asked}) == {name: held}
    verdict = judge({name: asked}, {name: asked}, limits)
    assert dict(verdict.setpoints) == {name: held}
    assert limits.resolution["temperature"] == 0.1  # the others keep what is assumed
    assert name not in limits.assumed and "temperature" in limits.assumed


@pytest.mark.parametrize("name", list(SPACE.control_bounds))
def test_a_32_bit_device_at_a_limit_is_at_the_limit(name):
    bounds = SPACE.control_bounds[name]
    for edge in (bounds.lo, bounds.hi):
        verdict = judge({name: edge}, {name: float32(edge)}, hours=0.0)
        assert verdict.action == "write" and dict(verdict.setpoints) == {name: edge}, verdict


def test_one_step_of_a_32_bit_device_is_one_step():
    limits = GateLimits(
        lower={"temperature": 35.0},
        upper={"temperature": 37.5},
        max_rate={"temperature": 0.1},
        resolution={"temperature": 0.1},
    )
    for k in range(351, 374):
        now = {"temperature": float32(k / 10)}
        assert judge({"temperature": 37.5}, now, limits).setpoints["temperature"] == (k + 1) / 10


def test_a_value_outside_stays_outside():
    verdict = judge({"bleed_rate": 0.3}, {"bleed_rate": 0.301}, hours=0.0)
    assert verdict.action == "hold" and "an operator must act" in verdict.reasons[0]


def test_the_balance_is_not_broken_by_32_bits():
    held = {"bleed_rate": float32(0.3), "perfusion_rate": 0.5}
    limits = GateLimits(
        lower={"perfusion_rate": 0.3, "bleed_rate": 0.05},
        upper={"perfusion_rate": 2.0, "bleed_rate": 0.3},
    )
    verdict = judge({"perfusion_rate": 0.3}, held, limits)
    assert held["bleed_rate"] > 0.3 and dict(verdict.setpoints) == {"perfusion_rate": 0.3}


def test_a_reading_at_a_limit_is_not_implausible():
    bounds = {"Glc": (0.0, 0.3), "Via": (0.0, 100.0)}
    assert implausible({"Glc": float32(0.3), "Via": 100.00000763}, bounds=bounds) == []
    assert implausible({"Glc": 0.3001}, bounds=bounds) == ["Glc=0.3001 outside 0 to 0.3"]


def test_a_window_between_two_floats_holds_no_value():
    third = Fraction(1, 3)
    assert nearest(third, (third, third), None) is None
    assert nearest(Fraction(5), (third, third), None) is None
    assert nearest(third, (Fraction(1, 4), third), None) == 0.3333333333333333


# ---------------------------------------------------------------- what a device says


@pytest.mark.parametrize(
    ("device", "default", "step"),
    [(10.0, 5.0, 10.0), (1.0, 5.0, 5.0), (2.0, 5.0, 6.0), (0.05, 0.01, 0.05), (0.003, 0.01, 0.012)],
)
def test_the_default_step_becomes_one_the_device_can_hold(device, default, step):
    assert no_finer(Grid(device), default) == Grid(step)


def test_whole_kelvins_are_no_whole_degrees():
    limits, notes = LIMITS.with_device({"temperature": Grid(1.0, -273.15)})
    assert not notes and on_device(limits, {"temperature": 36.2}) == {"temperature": 35.85}
    verdict = judge({"temperature": 37.2}, {"temperature": 36.85}, limits)
    assert dict(verdict.setpoints) == {"temperature": 36.85}
    assert LIMITS.with_device({})[0] is LIMITS


def test_what_a_person_told_stays_and_a_device_that_disagrees_is_named():
    limits = GateLimits.from_design_space(SPACE, device_steps={"agitation": 5.0})
    same, notes = limits.with_device({"agitation": Grid(2.0), "light": Grid(1.0)})
    assert same is limits and notes == [
        "agitation is told to have steps of 5; the device says 2 from 0"
    ]
    assert limits.with_device({"agitation": Grid(1.0)}) == (limits, [])


def test_a_step_that_no_value_within_the_limits_has_is_not_taken():
    limits, notes = LIMITS.with_device({"bleed_rate": Grid(1.0)})
    assert limits is LIMITS and "No multiple of the resolution 1 of bleed_rate" in notes[0]
    with pytest.raises(ConfigError, match="No multiple of the resolution 1 of bleed_rate"):
        GateLimits.from_design_space(SPACE, device_steps={"bleed_rate": 1.0})
    with pytest.raises(ConfigError, match="origin of agitation is nan"):
        GateLimits.from_design_space(SPACE, origin={"agitation": math.nan})


# ---------------------------------------------------------------- what is asked for


@given(
    wanted=st.fixed_dictionaries(
        {n: st.floats(b.lo, b.hi) for n, b in SPACE.control_bounds.items()}
    ),
    steps=st.fixed_dictionaries(
        {},
        optional={
            "agitation": st.sampled_from([1.0, 7.0, 10.0, 25.0]),
            "perfusion_rate": st.sampled_from([0.05, 0.1, 1 / 3]),
            "temperature": st.sampled_from([0.25, 0.5]),
        },
    ),
)
def test_what_is_asked_for_is_what_is_written(wanted, steps):
    """One number: asked, shown, and let through by the gate where no limit stands in the way."""
    limits = GateLimits.from_design_space(SPACE, device_steps=steps, max_rate={})
    asked = on_device(limits, wanted)
    assert on_device(limits, asked) == asked
    assert (
        asked["bleed_rate"] <= asked["perfusion_rate"]
        or wanted["bleed_rate"] > (wanted["perfusion_rate"])
    )
    for name, value in asked.items():
        assert abs(value - wanted[name]) <= limits.resolution[name] * (1 + 1e-9)
        assert limits.lower[name] <= value <= limits.upper[name]
    verdict = judge(asked, {}, limits)
    if asked["bleed_rate"] <= asked["perfusion_rate"]:
        assert verdict.action == "write" and dict(verdict.setpoints) == asked
        assert verdict.clamped == () and verdict.reasons == ()


def test_rounding_lets_no_more_out_than_in():
    grids = {"bleed_rate": Grid(0.005), "perfusion_rate": Grid(0.01)}
    bounds = {"bleed_rate": (0.05, 0.6), "perfusion_rate": (0.2, 2.0)}
    pair = ("bleed_rate", "perfusion_rate")
    even = {"bleed_rate": 0.304, "perfusion_rate": 0.304}
    assert rounded(even, grids, bounds) == {"bleed_rate": 0.305, "perfusion_rate": 0.3}
    assert rounded(even, grids, bounds, pair) == {"bleed_rate": 0.3, "perfusion_rate": 0.3}
    held = frozenset({"bleed_rate"})  # by an operator: it is not ours to move
    assert rounded(even, grids, bounds, pair, fixed=held) == {**even, "perfusion_rate": 0.3}


def test_what_is_no_number_is_left_to_the_gate():
    odd = {"agitation": math.nan, "temperature": "36", "light": 3.3, "bleed_rate": True}
    assert on_device(LIMITS, {**odd, "perfusion_rate": 99.996}) == {**odd, "perfusion_rate": 100.0}
    assert not is_number(10**400) and not is_number(True) and is_number(10**300)


@given(st.floats(-2e3, 2e3), st.sampled_from([0.1, 0.005, 5.0, 1 / 3]))
def test_a_read_back_is_itself_unless_it_is_a_rounding(value, step):
    bounds = (exact(-3e3), exact(3e3))
    held = as_held(value, bounds, Grid(step))
    assert abs(held - exact(value)) <= Fraction(1, 10**6) * max(abs(held), abs(exact(value)))
    on_grid = nearest(exact(value), bounds, Grid(step))
    assert on_grid is not None
    assert as_held(float32(on_grid), bounds, Grid(step)) == pytest.approx(on_grid, rel=1e-12)


# ---------------------------------------------------------------- where two rules meet


def test_a_value_inside_its_bounds_stays_inside_where_the_grid_has_none_there():
    five = {"agitation": Grid(5.0)}

    def at(value: float, low: float, high: float) -> float:
        return rounded({"agitation": value}, five, {"agitation": (low, high)})["agitation"]

    assert at(13.0, 8.0, 14.0) == 10.0  # 15 is nearer, and outside
    assert at(12.0, 11.0, 14.0) == 12.0  # no multiple of 5 is inside: the gate judges it
    assert at(11.0, 11.0, 18.0) == 15.0 and at(14.0, 8.0, 14.0) == 10.0  # the bounds count
    assert at(23.0, 8.0, 14.0) == 25.0  # outside it was, on the grid it goes to the gate
    assert rounded({"agitation": 13.0}, five, {}) == {"agitation": 15.0}


def test_lowering_the_outflow_keeps_to_its_grid_and_its_bounds():
    pair = ("bleed_rate", "perfusion_rate")
    even = {"bleed_rate": 0.304, "perfusion_rate": 0.304}
    grids = {"bleed_rate": Grid(0.007), "perfusion_rate": Grid(0.01)}
    assert rounded(even, grids, {}, pair) == {"bleed_rate": 0.294, "perfusion_rate": 0.3}
    coarse = {"bleed_rate": Grid(5.0)}  # nothing on it within one below 13: one step is looked at
    assert rounded({"bleed_rate": 13.0, "perfusion_rate": 13.0}, coarse, {}, pair) == {
        "bleed_rate": 10.0,
        "perfusion_rate": 13.0,
    }
    free = {"perfusion_rate": Grid(0.01)}  # an outflow without a grid goes down to the inflow
    assert rounded(even, free, {}, pair) == {"bleed_rate": 0.3, "perfusion_rate": 0.3}
    narrow = {"bleed_rate": (0.302, 0.6)}  # nothing at or below 0.3 is allowed: the gate decides
    grids = {"bleed_rate": Grid(0.005), "perfusion_rate": Grid(0.01)}
    assert rounded(even, grids, narrow, pair) == {"bleed_rate": 0.305, "perfusion_rate": 0.3}


def test_a_read_back_is_told_from_the_grid_s_own_origin_and_from_the_limits():
    wide = (exact(0.0), exact(50.0))
    kelvin = Grid(1.0, -273.15)
    assert as_held(float32(36.85), wide, kelvin) == exact(36.85)
    assert as_held(37.2, wide, kelvin) == exact(37.2)  # another number: it stays
    assert as_held(0.9999999, wide, Grid(1.0)) == 1 and as_held(0.4, wide, Grid(1.0)) == exact(0.4)
    both = (exact(0.0), exact(0.30000004))  # a limit beside a value of the grid: the grid's
    assert as_held(0.30000002, both, Grid(0.1)) == exact(0.3)
    over = (exact(0.30000004), exact(0.5))
    assert as_held(0.30000002, over, Grid(0.1)) == exact(0.3)
    far = (exact(0.0), exact(1e7))  # where a millionth is more than a step, the nearest of several
    assert as_held(2000000.6, far, Grid(1.0)) == 2000001
    assert as_held(2000000.4, far, Grid(1.0)) == 2000000
    edge = (exact(0.999999), exact(5.0))  # a millionth away is still the device's way
    assert as_held(1.0, edge, None) == exact(0.999999)


def test_each_control_of_a_device_is_judged_by_itself():
    found = {"light": Grid(1.0), "agitation": Grid(10.0), "temperature": Grid(0.25)}
    limits, notes = LIMITS.with_device(found)
    assert not notes and "light" not in limits.resolution
    assert (limits.resolution["agitation"], limits.resolution["temperature"]) == (10.0, 0.25)
    assert LIMITS.with_device({"agitation": Grid(1.0)})[0].resolution["agitation"] == 5.0
    told = GateLimits.from_design_space(
        SPACE, device_steps={"temperature": 1.0, "agitation": 10.0}, origin={"temperature": 0.85}
    )
    kelvin = {"temperature": Grid(1.0, -273.15), "bleed_rate": Grid(0.05), "agitation": Grid(2.0)}
    learnt, notes = told.with_device(kelvin)
    assert not notes  # a degree from 0.85 is a kelvin from 274, and ten turns are five times two
    assert learnt.resolution["bleed_rate"] == 0.05
    bare = GateLimits(lower={"x": 0.0}, upper={"x": 10.0})
    assert bare.with_device({"x": Grid(0.5)})[0].resolution == {"x": 0.5}
    given_whole = GateLimits.from_design_space(SPACE, resolution={"agitation": 2.0})
    assert given_whole.assumed == frozenset()


# ---------------------------------------------------------------- the writer learns it


class Coarse:
    """A connector to a device that says its grid, as long as it can be reached."""

    def __init__(self) -> None:
        self.grids: dict[str, tuple[float, float]] | None = {"agitation": (10.0, 0.0)}

    async def read_grids(self):
        if self.grids is None:
            raise ConnectorError("the line broke")
        return self.grids


class Notes:
    def __init__(self) -> None:
        self.kept: list[tuple] = []

    def log(self, kind, payload, **more):
        self.kept.append((kind, payload, more.get("reason")))


class Here:
    async def offload(self, work):
        return work()


async def test_the_writer_keeps_to_the_grid_the_device_says():
    device, notes, session = Coarse(), Notes(), Session(LIMITS.resolution)
    writer = SetpointWriter(
        device, None, notes, session,  # pyright: ignore[reportArgumentType]
        limits=LIMITS, settings=LoopSettings(), runtime=Here(), is_stopping=lambda: False,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    await writer.learn_grid(0)
    await writer.learn_grid(1)  # nothing new: nothing is written down
    assert writer.limits.resolution["agitation"] == session.resolution["agitation"] == 10.0
    assert [kind for kind, *_ in notes.kept] == ["DEVICE_GRID"]
    assert notes.kept[0][1]["agitation"] == [10.0, 0.0]
    device.grids = None
    await writer.learn_grid(2)  # out of reach: what was known stays
    assert writer.limits.resolution["agitation"] == 10.0
    device.grids = {"bleed_rate": (1.0, 0.0)}
    await writer.learn_grid(3)
    assert writer.limits == LIMITS and session.resolution == LIMITS.resolution
    assert "No multiple of the resolution 1 of bleed_rate" in notes.kept[-1][2]


async def test_a_connector_that_says_nothing_is_not_asked():
    notes = Notes()
    writer = SetpointWriter(
        object(), None, notes, Session({}),  # pyright: ignore[reportArgumentType]
        limits=LIMITS, settings=LoopSettings(), runtime=Here(), is_stopping=lambda: False,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    await writer.learn_grid(0)
    assert writer.limits is LIMITS and not notes.kept
