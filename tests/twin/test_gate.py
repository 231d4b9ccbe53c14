"""The gate: every limit on its own, then properties over arbitrary requests."""

import dataclasses
import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax._core import ConfigError
from perfusio_jax.twin.decision.gate import GateRequest, GateVerdict, gate, operator_edits
from perfusio_jax.twin.decision.gate_limits import GateLimits
from perfusio_jax.twin.decision.grid import nearest as nearest_in

LIMITS = GateLimits(
    lower={"perfusion_rate": 0.5, "bleed_rate": 0.05, "temperature": 35.0, "agitation": 700.0},
    upper={"perfusion_rate": 2.0, "bleed_rate": 0.6, "temperature": 37.5, "agitation": 1050.0},
    max_rate={"perfusion_rate": 0.5, "bleed_rate": 0.2, "temperature": 1.0},
    resolution={"perfusion_rate": 0.01, "bleed_rate": 0.005, "temperature": 0.1, "agitation": 5},
    fallback_recipe={"perfusion_rate": 1.5, "bleed_rate": 0.1, "temperature": 36.5},
)
READ_BACK = {"perfusion_rate": 1.0, "bleed_rate": 0.1, "temperature": 37.0, "agitation": 850.0}
GOOD = GateRequest(
    setpoints={"perfusion_rate": 1.2, "bleed_rate": 0.15, "temperature": 36.5, "agitation": 900.0},
    read_back=READ_BACK,
    data_age_h=1.0,
    hours_without_good_data=1.0,
    allow_write=True,
    armed=True,
)


def judge(limits: GateLimits = LIMITS, **changes) -> GateVerdict:
    return gate(dataclasses.replace(GOOD, **changes), limits)


def test_a_request_with_nothing_wrong_is_written_as_asked():
    verdict = judge()
    assert verdict.action == "write"
    assert dict(verdict.setpoints) == dict(GOOD.setpoints)
    assert verdict.reasons == ()
    assert verdict.clamped == ()
    assert verdict.is_write


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"allow_write": False}, "allow_write"),
        ({"allow_write": 1}, "allow_write"),
        ({"armed": False}, "not armed"),
        ({"data_age_h": None}, "age of the data is unknown"),
        ({"data_age_h": math.nan}, "age of the data is unknown"),
        ({"data_age_h": 30.001}, "30.001 h old"),
        ({"data_age_h": -1.0}, "future"),
        ({"quality": "uncertain"}, "uncertain"),
        ({"quality": "bad"}, "bad"),
        ({"implausible": ("VCD stuck",)}, "VCD stuck"),
        ({"setpoints": {}}, "no set-point"),
        ({"setpoints": {"temperature": math.nan}}, "not a finite number"),
        ({"setpoints": {"temperature": math.inf}}, "not a finite number"),
        ({"setpoints": {"temperature": True}}, "not a finite number"),
        ({"setpoints": {"temperature": "36"}}, "not a finite number"),
        ({"setpoints": {"pH": 7.0}}, "pH is not a control"),
        ({"read_back": {**READ_BACK, "temperature": None}}, "could not be read back"),
        ({"read_back": {**READ_BACK, "temperature": math.nan}}, "could not be read back"),
        ({"read_back": {}}, "could not be read back"),
        ({"hours_since_write": math.nan}, "time since the last write"),
        ({"hours_since_write": -1.0}, "time since the last write"),
        ({"setpoints": {"perfusion_rate": 0.5, "bleed_rate": 0.55}}, "was asked to exceed"),
        ({"operator_override": frozenset(GOOD.setpoints)}, "nothing is left"),
    ],
)
def test_each_single_no_holds_and_says_why(changes, word):
    verdict = judge(**changes)
    assert verdict.action == "hold"
    assert not verdict.setpoints
    assert any(word in reason for reason in verdict.reasons), verdict.reasons


def test_all_reasons_are_given_at_once():
    verdict = judge(allow_write=False, armed=False)
    assert len(verdict.reasons) == 2
    verdict = judge(data_age_h=99.0, quality="bad", implausible=("Glc",))
    assert len(verdict.reasons) == 3


def test_a_good_request_at_the_exact_age_limit_passes():
    assert judge(data_age_h=30.0).action == "write"
    assert judge(data_age_h=-0.04).action == "write"


@pytest.mark.parametrize(("asked", "given_"), [(1.9, 1.5), (0.1, 0.5), (1e9, 1.5), (-1e9, 0.5)])
def test_rate_limit_is_measured_from_the_read_back(asked, given_):
    verdict = judge(setpoints={"perfusion_rate": asked})
    assert verdict.setpoints["perfusion_rate"] == given_
    assert verdict.clamped == ("perfusion_rate",)


def test_hard_limits_clamp_where_no_rate_limit_does():
    assert judge(setpoints={"agitation": 2000.0}).setpoints["agitation"] == 1050.0
    verdict = judge(setpoints={"agitation": 100.0})
    assert verdict.setpoints["agitation"] == 700.0
    assert "limits 700 to 1050" in verdict.reasons[0]


def test_rate_limit_shrinks_with_the_time_since_the_last_write_and_never_grows_past_a_day():
    asked = {"temperature": 35.0}
    assert judge(setpoints=asked, hours_since_write=12.0).setpoints["temperature"] == 36.5
    assert judge(setpoints=asked, hours_since_write=24.0).setpoints["temperature"] == 36.0
    assert judge(setpoints=asked, hours_since_write=240.0).setpoints["temperature"] == 36.0


def test_one_device_step_is_possible_when_the_rate_limit_is_one_step():
    limits = dataclasses.replace(LIMITS, max_rate={"temperature": 0.1})
    for actual in (36.1, 36.2, 36.3, 36.4, 36.6, 36.7):
        verdict = judge(limits, setpoints={"temperature": 37.5}, read_back={"temperature": actual})
        assert verdict.setpoints["temperature"] == round(actual + 0.1, 1)


def test_values_land_on_the_device_grid_nearest_and_exactly():
    verdict = judge(setpoints={"temperature": 36.449, "agitation": 848.0, "bleed_rate": 0.1012})
    assert dict(verdict.setpoints) == {"temperature": 36.4, "agitation": 850.0, "bleed_rate": 0.1}
    assert verdict.clamped == ()


def test_grid_stays_inside_limits_that_are_off_the_grid():
    limits = GateLimits(
        lower={"temperature": 35.05}, upper={"temperature": 37.44}, resolution={"temperature": 0.1}
    )
    read_back = {"temperature": 36.0}
    high = judge(limits, setpoints={"temperature": 99.0}, read_back=read_back)
    low = judge(limits, setpoints={"temperature": 0.0}, read_back=read_back)
    assert high.setpoints["temperature"] == 37.4
    assert low.setpoints["temperature"] == 35.1


def test_a_control_that_cannot_move_one_step_stays_and_the_others_are_written():
    verdict = judge(
        setpoints={"temperature": 35.0, "agitation": 900.0},
        read_back={**READ_BACK, "temperature": 36.95},
        hours_since_write=0.5,
    )
    assert dict(verdict.setpoints) == {"agitation": 900.0}
    assert any("no device step" in reason for reason in verdict.reasons)


def test_a_read_back_outside_the_limits_is_brought_inside_only_within_the_rate_limit():
    near = judge(setpoints={"temperature": 36.5}, read_back={"temperature": 38.2})
    assert near.setpoints["temperature"] == 37.2
    far = judge(setpoints={"temperature": 36.5}, read_back={"temperature": 45.0})
    assert far.action == "hold"
    assert "an operator must act" in far.reasons[0]


def test_bleed_is_lowered_to_perfusion_when_limits_made_them_cross():
    limits = dataclasses.replace(LIMITS, lower={**LIMITS.lower, "perfusion_rate": 0.2})
    request = {
        "setpoints": {"perfusion_rate": 0.9, "bleed_rate": 0.5},
        "read_back": {"perfusion_rate": 0.3, "bleed_rate": 0.45},
        "hours_since_write": 4.8,
    }
    verdict = judge(limits, **request)
    assert verdict.action == "hold"  # 0.45 - 0.04 is still above 0.40: cannot be mended
    assert "would exceed" in verdict.reasons[-1]
    wider = dataclasses.replace(limits, max_rate={**LIMITS.max_rate, "bleed_rate": 0.5})
    verdict = judge(wider, **request)
    assert dict(verdict.setpoints) == {"perfusion_rate": 0.4, "bleed_rate": 0.4}
    assert "bleed_rate" in verdict.clamped


def test_balance_counts_the_value_in_force_of_a_control_that_is_not_written():
    assert judge(setpoints={"bleed_rate": 0.3}, read_back={"bleed_rate": 0.3}).action == "hold"
    low_flow = {"bleed_rate": 0.3, "perfusion_rate": 0.25}
    verdict = judge(setpoints={"bleed_rate": 0.3}, read_back=low_flow)
    assert verdict.setpoints["bleed_rate"] == 0.25
    off = dataclasses.replace(LIMITS, balance=None)
    assert judge(off, setpoints={"bleed_rate": 0.3}, read_back=low_flow).action == "write"


def test_operator_override_leaves_that_control_alone():
    verdict = judge(operator_override=frozenset({"temperature"}))
    assert "temperature" not in verdict.setpoints
    assert set(verdict.setpoints) == {"perfusion_rate", "bleed_rate", "agitation"}
    assert any("manual control" in reason for reason in verdict.reasons)


def test_fallback_after_t1_goes_through_the_same_limits():
    verdict = judge(hours_without_good_data=48.0, data_age_h=48.0, quality="bad")
    assert verdict.action == "fallback"
    assert dict(verdict.setpoints) == {
        "perfusion_rate": 1.5,
        "bleed_rate": 0.1,
        "temperature": 36.5,
    }
    slow = judge(hours_without_good_data=50.0, hours_since_write=12.0)
    assert slow.setpoints["perfusion_rate"] == 1.25
    assert "no good data for 50 h" in slow.reasons[0]
    none = dataclasses.replace(LIMITS, fallback_recipe={})
    assert judge(none, hours_without_good_data=48.0).action == "hold"


@pytest.mark.parametrize("hours", [96.0, 1e6, math.inf, math.nan, None])
def test_disarm_after_t2_or_when_the_time_is_not_known(hours):
    verdict = judge(hours_without_good_data=hours)
    assert verdict.action == "disarm"
    assert not verdict.setpoints


def test_no_fallback_and_no_disarm_without_permission():
    assert judge(hours_without_good_data=50.0, allow_write=False).action == "hold"
    assert judge(hours_without_good_data=99.0, armed=False).action == "hold"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"lower": {}, "upper": {}}, "at least one control"),
        ({"lower": {"a": 1.0}, "upper": {"b": 2.0}}, "check a, b"),
        ({"lower": {"a": 2.0}, "upper": {"a": 1.0}}, "Limits of a"),
        ({"lower": {"a": math.nan}, "upper": {"a": 1.0}}, "Limits of a"),
        ({"max_rate": {"b": 1.0}}, "max_rate names b"),
        ({"max_rate": {"a": 0.0}}, "above zero"),
        ({"resolution": {"a": -1.0}}, "above zero"),
        ({"lower": {"a": 0.1}, "upper": {"a": 0.9}, "resolution": {"a": 1.0}}, "No multiple"),
        ({"fallback_recipe": {"a": 9.0}}, "fallback recipe sets a"),
        ({"fallback_recipe": {"b": 9.0}}, "names b"),
        ({"max_data_age_h": 99.0}, "max_data_age_h"),
        ({"disarm_after_h": 1.0}, "max_data_age_h"),
        ({"max_data_age_h": 0.0}, "max_data_age_h"),
    ],
)
def test_limits_that_contradict_themselves_are_refused(changes, word):
    with pytest.raises(ConfigError, match=word):
        GateLimits(**({"lower": {"a": 0.0}, "upper": {"a": 1.0}} | changes))


def test_a_recipe_that_drains_the_reactor_is_refused():
    with pytest.raises(ConfigError, match="more would leave"):
        dataclasses.replace(LIMITS, fallback_recipe={"bleed_rate": 0.6, "perfusion_rate": 0.5})


def test_limits_from_a_design_space():
    bounds = {"temperature": SimpleNamespace(lo=35.0, hi=37.0), "x": SimpleNamespace(lo=1, hi=1)}
    limits = GateLimits.from_design_space(SimpleNamespace(control_bounds=bounds), balance=None)
    assert limits.max_rate == {"temperature": 1.0}
    assert limits.resolution == {"temperature": 0.1}
    assert limits.controls == ("temperature", "x")
    with pytest.raises(ConfigError, match="no controls"):
        GateLimits.from_design_space(SimpleNamespace(control_bounds={}))


def test_limits_cannot_be_changed_behind_the_gates_back():
    source = {"a": 0.0}
    limits = GateLimits(lower=source, upper={"a": 1.0})
    source["a"] = -5.0
    assert limits.lower["a"] == 0.0
    with pytest.raises(TypeError):
        limits.lower["a"] = -5.0  # type: ignore[index]


def test_numpy_scalars_are_numbers():
    verdict = judge(setpoints={"temperature": np.float32(36.5)})
    assert verdict.setpoints["temperature"] == 36.5


def test_operator_edits_see_more_than_rounding():
    written = {"temperature": 36.5, "agitation": 900.0, "bleed_rate": 0.1}
    read = {"temperature": 36.500001, "agitation": 880.0, "bleed_rate": None}
    assert operator_edits(written, read, LIMITS.resolution) == {"agitation"}
    assert operator_edits({"x": 1.1}, {"x": float(np.float32(1.1))}, {}) == frozenset()


NUMBER = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(min_value=-3.0, max_value=3.0),
    st.sampled_from([0.0, -0.0, 1.1, 1.2, 0.3, 5e-324, 1e308]),
)
MAYBE = st.one_of(st.none(), NUMBER)


@st.composite
def all_limits(draw):
    lower, upper, rate, step = {}, {}, {}, {}
    for name in ("perfusion_rate", "bleed_rate", "temperature"):
        low = draw(st.floats(min_value=-2.0, max_value=2.0))
        lower[name], upper[name] = low, low + draw(st.floats(min_value=0.0, max_value=3.0))
        if draw(st.booleans()):
            rate[name] = draw(st.floats(min_value=1e-3, max_value=5.0))
        if draw(st.booleans()):
            step[name] = draw(st.sampled_from([0.001, 0.01, 0.1, 0.005, 1 / 3, 5.0]))
    step = {
        n: s for n, s in step.items() if math.floor(upper[n] / s) - math.ceil(lower[n] / s) >= 1
    }
    return GateLimits(lower=lower, upper=upper, max_rate=rate, resolution=step)


@st.composite
def requests(draw):
    names = st.sampled_from(["perfusion_rate", "bleed_rate", "temperature", "nonsense"])
    return GateRequest(
        setpoints=draw(st.dictionaries(names, NUMBER, max_size=4)),
        read_back=draw(st.dictionaries(names, MAYBE, max_size=4)),
        data_age_h=draw(st.one_of(st.just(1.0), MAYBE)),
        hours_without_good_data=draw(st.one_of(st.just(1.0), NUMBER)),
        quality=draw(st.sampled_from(["good", "good", "good", "bad", ""])),
        allow_write=draw(st.sampled_from([True, True, True, False])),
        armed=draw(st.sampled_from([True, True, True, False])),
        operator_override=draw(st.frozensets(names, max_size=1)),
        hours_since_write=draw(st.one_of(st.just(24.0), NUMBER)),
    )


def exact(value: float) -> Fraction:
    return Fraction(repr(float(value)))


def check_promises(request: GateRequest, limits: GateLimits) -> GateVerdict:
    verdict = gate(request, limits)
    assert verdict.action in ("write", "hold", "fallback", "disarm")
    assert verdict.is_write == (verdict.action in ("write", "fallback"))
    assert verdict.is_write or verdict.reasons
    if verdict.is_write:
        assert request.allow_write and request.armed
    for name, value in verdict.setpoints.items():
        assert math.isfinite(value)
        assert limits.lower[name] <= value <= limits.upper[name]
        assert name not in request.operator_override
        if name in limits.max_rate:
            moved = abs(exact(value) - exact(request.read_back[name]))
            reach = exact(limits.max_rate[name]) * exact(min(request.hours_since_write, 24.0)) / 24
            # A read-back is taken for the number it is up to the rounding of a 32-bit device.
            assert moved <= reach + abs(exact(request.read_back[name])) / 10**6
        if name in limits.resolution:
            steps = exact(value) / exact(limits.resolution[name])
            assert abs(steps - round(steps)) < Fraction(1, 10**9)
    if {"bleed_rate", "perfusion_rate"} & set(verdict.setpoints):
        in_force = {**request.read_back, **verdict.setpoints}
        slack = 1e-6 * max(abs(in_force["bleed_rate"]), abs(in_force["perfusion_rate"]))
        assert in_force["bleed_rate"] <= in_force["perfusion_rate"] + slack
        if {"bleed_rate", "perfusion_rate"} <= set(verdict.setpoints):
            assert verdict.setpoints["bleed_rate"] <= verdict.setpoints["perfusion_rate"]
    return verdict


@given(request=requests(), limits=all_limits())
def test_no_request_whatever_gets_past_the_limits(request, limits):
    check_promises(request, limits)


@given(data=st.data(), limits=all_limits())
def test_promises_hold_for_requests_that_are_nearly_always_written(data, limits):
    near = st.floats(min_value=-0.5, max_value=0.5)
    read_back = {
        name: min(max(limits.lower[name] + data.draw(near), limits.lower[name]), 6.0)
        for name in limits.controls
    }
    wild = st.floats(min_value=-10, max_value=10)
    request = dataclasses.replace(
        GOOD,
        setpoints={name: data.draw(wild) for name in ("perfusion_rate", "temperature")},
        read_back=read_back,
        hours_since_write=data.draw(st.floats(min_value=0.0, max_value=100.0)),
    )
    check_promises(request, limits)


@given(limits=all_limits(), wild=st.floats(min_value=-10, max_value=10))
def test_without_rate_limit_or_balance_a_finite_request_is_always_written(limits, wild):
    limits = dataclasses.replace(limits, max_rate={}, balance=None)
    request = dataclasses.replace(
        GOOD, setpoints={"temperature": wild}, read_back={"temperature": 0.0}
    )
    verdict = check_promises(request, limits)
    assert verdict.action == "write"


def test_a_request_that_does_not_say_so_may_not_write():
    bare = GateRequest(GOOD.setpoints, READ_BACK, 1.0, 1.0)
    assert gate(bare, LIMITS).action == "hold"
    assert gate(dataclasses.replace(bare, allow_write=True), LIMITS).action == "hold"
    assert gate(dataclasses.replace(bare, armed=True), LIMITS).action == "hold"


def test_bleed_may_equal_perfusion():
    even = {"perfusion_rate": 0.5, "bleed_rate": 0.5}
    verdict = judge(setpoints=even, read_back=even)
    assert dict(verdict.setpoints) == even
    dataclasses.replace(LIMITS, fallback_recipe=even)


def test_more_than_half_a_step_from_what_was_asked_is_called_clamped():
    limits = GateLimits(
        lower={"temperature": 35.0}, upper={"temperature": 37.44}, resolution={"temperature": 0.1}
    )
    read_back = {"temperature": 37.0}
    assert judge(limits, setpoints={"temperature": 37.44}, read_back=read_back).clamped == ()
    over = judge(limits, setpoints={"temperature": 37.47}, read_back=read_back)
    assert over.setpoints["temperature"] == 37.4 and over.clamped == ("temperature",)


@pytest.mark.parametrize(
    ("written", "actual", "step", "is_edit"),
    [
        (36.5, 36.5, 0.1, False),
        (36.5, 36.54, 0.1, False),  # less than half a step
        (36.5, 36.56, 0.1, True),  # more than half a step, less than one
        (1.0, 1.0 + 2e-6, 0.0, True),  # no grid: six digits count
        (1.0, 1.0 + 0.9e-6, 0.0, False),
        (1000.0, 1000.0009, 0.0, False),  # as 32-bit floats round
        (0.001, 0.0010005, 0.0, True),
        (2.0, 2.5, 1.0, False),  # exactly half a step is rounding
        (0.0, 0.0, 0.0, False),
    ],
)
def test_an_edit_is_more_than_half_a_device_step(written, actual, step, is_edit):
    resolution = {"temperature": step} if step else {"agitation": 7.0}
    edited = operator_edits({"temperature": written}, {"temperature": actual}, resolution)
    assert edited == (frozenset({"temperature"}) if is_edit else frozenset())


def test_one_value_that_cannot_be_read_hides_no_edit_of_another():
    written = {"bleed_rate": 0.1, "perfusion_rate": 1.0, "temperature": 36.5}
    found = {"bleed_rate": None, "perfusion_rate": math.nan, "temperature": 37.5}
    assert operator_edits(written, found, {}) == {"temperature"}


def test_what_was_changed_says_by_which_limit():
    beyond = judge(setpoints={"temperature": 40.0}, read_back={"temperature": 37.0})
    assert beyond.reasons == ("temperature was asked to be 40 and is 37.5 (limits 35 to 37.5)",)
    below = judge(setpoints={"temperature": 34.0}, read_back={"temperature": 35.5})
    assert below.reasons == ("temperature was asked to be 34 and is 35 (limits 35 to 37.5)",)
    for edge in (35.0, 37.5):  # within the limits, both ends included
        rate = judge(setpoints={"temperature": edge}, read_back={"temperature": 36.2})
        assert len(rate.reasons) == 1 and rate.reasons[0].endswith("(rate limit)")


def test_vetoes_and_missing_approval_hold_and_the_fallback_needs_no_approval():
    verdict = judge(vetoes=("the clocks disagree", "a stop"))
    assert verdict.action == "hold" and verdict.reasons == ("the clocks disagree", "a stop")
    assert judge(approved=False).reasons == ("the set-points have not been approved",)
    assert judge(approved=1).action == "hold"
    blind = {"hours_without_good_data": 60.0, "approved": False}
    assert judge(**blind).action == "fallback"
    assert judge(**blind, vetoes=("a stop",)).action == "hold"
    assert judge(hours_without_good_data=200.0, vetoes=("a stop",)).action == "hold"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"upper": {**LIMITS.upper, "temperature": 30.0}},
            "^Limits of temperature are 35.0 to 30.0; two finite numbers, the lower first, are "
            "needed.$",
        ),
        ({"lower": {}, "upper": {}}, "^Gate limits need at least one control; none was given.$"),
        (
            {"fallback_recipe": {"bleed_rate": 0.55, "perfusion_rate": 0.52}},
            "^The fallback recipe has bleed_rate 0.55 above perfusion_rate 0.52; more would leave "
            "than enters.$",
        ),
        (
            {"fallback_recipe": {"temperature": 40.0}},
            "^The fallback recipe sets temperature to 40.0; allowed is 35 to 37.5.$",
        ),
        (
            {"fallback_recipe": {"light": 1.0}},
            "^The fallback recipe names light, which has no limits.$",
        ),
        (
            {"max_rate": {"temperature": 0.0}},
            "^max_rate of temperature is 0.0; it must be above zero.$",
        ),
        ({"resolution": {"light": 0.1}}, "^resolution names light, which has no limits.$"),
        (
            {"resolution": {"bleed_rate": 0.7}},
            "^No multiple of the resolution 0.7 of bleed_rate lies within its limits.$",
        ),
        (
            {"fallback_after_h": 20.0},
            "^0 < max_data_age_h <= fallback_after_h <= disarm_after_h is needed .h.; given 30.0, "
            "20.0, 96.0$",
        ),
    ],
)
def test_limits_that_cannot_be_met_are_refused_in_these_words(fields, says):
    with pytest.raises(ConfigError, match=says):
        dataclasses.replace(LIMITS, **fields)


def test_a_design_space_without_controls_has_nothing_to_gate():
    with pytest.raises(
        ConfigError, match=r"^The design space has no controls, so there is nothing"
    ):
        GateLimits.from_design_space(SimpleNamespace(control_bounds={}))


def balanced(into: float, reach: float, **changes) -> GateVerdict:
    """Outflow and inflow whose rate limit is `reach`; the inflow has no grid."""
    limits = GateLimits(
        lower={"perfusion_rate": 0.5, "bleed_rate": 0.05},
        upper={"perfusion_rate": 2.0, "bleed_rate": 0.8},
        max_rate={"perfusion_rate": reach, "bleed_rate": 0.05},
        resolution={"bleed_rate": 0.005},
    )
    request = dataclasses.replace(
        GOOD,
        setpoints={"perfusion_rate": 2.0, "bleed_rate": 0.8},
        read_back={"perfusion_rate": into - reach, "bleed_rate": 0.6, **changes},
    )
    return gate(request, limits)


def test_an_outflow_is_lowered_to_the_inflow_on_the_devices_grid_and_says_so():
    verdict = balanced(0.613, 0.05)
    assert dict(verdict.setpoints) == {"perfusion_rate": 0.613, "bleed_rate": 0.61}
    assert (
        verdict.reasons[-1] == "bleed_rate 0.65 lowered to 0.61: it may not exceed perfusion_rate"
    )
    assert verdict.clamped == ("perfusion_rate", "bleed_rate")


def test_an_outflow_equal_to_the_inflow_is_left_alone():
    verdict = balanced(0.65, 0.05)
    assert dict(verdict.setpoints) == {"perfusion_rate": 0.65, "bleed_rate": 0.65}
    assert not any("lowered" in reason for reason in verdict.reasons)


def test_an_outflow_may_go_down_as_far_as_its_rate_limit_and_no_further():
    at_the_limit = balanced(0.55, 0.03)
    assert dict(at_the_limit.setpoints) == {"perfusion_rate": 0.55, "bleed_rate": 0.55}
    beyond = balanced(0.549, 0.03)
    assert beyond.action == "hold"
    assert beyond.reasons[-1] == "bleed_rate 0.65 would exceed perfusion_rate 0.549"


@pytest.mark.parametrize("side", ["high", "low"])
def test_rounding_to_a_float_never_leaves_the_window(side):
    """Ends that no float can hold, such as sevenths: the float next inside is taken."""
    n_moved = 0
    for k in range(1, 400):
        end = Fraction(k, 7)
        window = (Fraction(0), end) if side == "high" else (end, Fraction(100))
        result = nearest_in(end, window, None)
        assert result is not None
        assert window[0] <= Fraction(repr(result)) <= window[1]
        nearest = float(end)
        moved = result != nearest
        n_moved += moved
        if moved:  # by one float, towards the inside
            towards = -math.inf if side == "high" else math.inf
            assert result == math.nextafter(nearest, towards)
    assert n_moved > 50


def test_ages_may_be_short():
    limits = dataclasses.replace(
        LIMITS, max_data_age_h=0.2, fallback_after_h=0.5, disarm_after_h=0.9
    )
    assert judge(limits, data_age_h=0.1, hours_without_good_data=0.1).action == "write"
    assert judge(limits, data_age_h=0.3, hours_without_good_data=0.1).action == "hold"


def test_a_control_reaches_as_far_as_the_hours_let_it_and_a_day_at_most():
    limits = GateLimits(lower={"a": 0.0, "b": 0.0}, upper={"a": 9.0, "b": 9.0}, max_rate={"a": 2.0})
    assert limits.reach(6.0) == {"a": 0.5} and limits.reach(24.0) == {"a": 2.0}
    assert limits.reach(48.0) == {"a": 2.0}
