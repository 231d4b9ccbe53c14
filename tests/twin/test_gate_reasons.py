"""What the gate says of a request and of limits: the sentence with its names and numbers."""

import dataclasses
import math
import struct

import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.twin.decision.gate import GateRequest, GateVerdict, gate
from perfusio_jax.twin.decision.gate_limits import GateLimits
from perfusio_jax.twin.decision.grid import Grid

LIMITS = GateLimits(
    lower={"perfusion_rate": 0.5, "bleed_rate": 0.05, "temperature": 35.0, "light": 0.0},
    upper={"perfusion_rate": 2.0, "bleed_rate": 0.6, "temperature": 37.5, "light": 9.0},
    max_rate={"perfusion_rate": 0.5, "bleed_rate": 0.5, "temperature": 1.0},
    resolution={"perfusion_rate": 0.01, "bleed_rate": 0.005, "temperature": 0.1},
    fallback_recipe={"perfusion_rate": 1.9, "bleed_rate": 0.1},
)
READ_BACK = {"perfusion_rate": 1.0, "bleed_rate": 0.1, "temperature": 37.0, "light": 5.0}
GOOD = GateRequest(
    setpoints={"perfusion_rate": 1.2, "bleed_rate": 0.15, "temperature": 36.5, "light": 4.0},
    read_back=READ_BACK,
    data_age_h=1.0,
    hours_without_good_data=1.0,
    allow_write=True,
    armed=True,
)
HELD = frozenset(GOOD.setpoints)


def judge(limits: GateLimits = LIMITS, **changes) -> GateVerdict:
    return gate(dataclasses.replace(GOOD, **changes), limits)


def float32(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"allow_write": False}, "writing is not allowed in this run (allow_write is off)"),
        ({"armed": False}, "the session is not armed"),
        ({"data_age_h": None}, "the age of the data is unknown"),
        ({"data_age_h": -1.5}, "the sample is dated 1.5 h in the future: check the clocks"),
        ({"data_age_h": 31.0}, "the sample is 31 h old (limit 30 h)"),
        ({"quality": "bad"}, 'the quality of the sample is "bad", not "good"'),
        ({"implausible": ("VCD stuck", "Glc jumped")}, "implausible: VCD stuck, Glc jumped"),
        ({"setpoints": {}}, "no set-point was asked for"),
        (
            {"setpoints": {"pH": 7.0}},
            "pH is not a control of this reactor (known: perfusion_rate, bleed_rate, temperature, "
            "light)",
        ),
        (
            {"setpoints": {"temperature": "36"}},
            "temperature was asked to be '36', which is not a finite number",
        ),
        (
            {"setpoints": {"perfusion_rate": 0.5, "bleed_rate": 0.55}},
            "bleed_rate 0.55 was asked to exceed perfusion_rate 0.5",
        ),
        (
            {"read_back": {**READ_BACK, "temperature": None}},
            "temperature could not be read back (None), so its rate limit cannot be judged",
        ),
        (
            {"hours_since_write": -2.0},
            "the time since the last write (-2.0 h) cannot be used for rate limits",
        ),
        (
            {"setpoints": {"temperature": 37.0}, "read_back": {"temperature": 45.0}},
            "temperature reads back 45, outside its limits 35 to 37.5 by more than its rate limit "
            "can mend: an operator must act",
        ),
        (
            {"setpoints": {"bleed_rate": 0.1}, "read_back": {"bleed_rate": 0.1}},
            "bleed_rate or perfusion_rate is unknown, so the volume balance cannot be judged",
        ),
    ],
)
def test_a_request_that_is_held_is_told_why_with_names_and_numbers(changes, says):
    verdict = judge(**changes)
    assert verdict.action == "hold" and verdict.reasons == (says,)


def test_every_set_point_that_cannot_be_is_named():
    verdict = judge(setpoints={"pH": 7.0, "temperature": math.nan, "DO": 40.0})
    assert [reason.split()[0] for reason in verdict.reasons] == ["pH", "temperature", "DO"]


def test_what_stays_as_it_is_is_named_beside_what_is_written():
    verdict = judge(operator_override=HELD - {"light"})
    assert dict(verdict.setpoints) == {"light": 4.0}
    assert verdict.reasons == tuple(
        f"{name} is under manual control and stays as it is"
        for name in ("perfusion_rate", "bleed_rate", "temperature")
    )
    assert judge(operator_override=HELD).reasons[-1] == "nothing is left to write"
    slow = judge(
        setpoints={"temperature": 35.0, "light": 4.0},
        read_back={**READ_BACK, "temperature": 36.95},
        hours_since_write=0.5,
    )
    assert dict(slow.setpoints) == {"light": 4.0}
    assert slow.reasons == (
        "temperature stays as it is: no device step lies within its rate limit",
    )


def test_time_without_good_data_is_told_with_its_limit_and_what_the_fallback_changed():
    disarmed = judge(hours_without_good_data=100.0)
    assert disarmed.reasons == ("no good data for 100 h (limit 96 h): disarmed",)
    fallback = judge(hours_without_good_data=50.0)
    assert fallback.action == "fallback" and fallback.setpoints["perfusion_rate"] == 1.5
    assert fallback.clamped == ("perfusion_rate",)
    assert fallback.reasons == (
        "no good data for 50 h (limit 48 h)",
        "perfusion_rate was asked to be 1.9 and is 1.5 (rate limit)",
    )
    bare = dataclasses.replace(LIMITS, fallback_recipe={})
    assert judge(bare, hours_without_good_data=50.0).reasons == (
        "no good data for 50 h (limit 48 h) and no fallback recipe is set",
    )


def test_the_ends_of_what_is_tolerated_are_tolerated():
    assert judge(data_age_h=-0.05).action == "write"  # CLOCK_SLACK_H
    even = dataclasses.replace(LIMITS, max_data_age_h=48.0, disarm_after_h=48.0)
    assert even.fallback_after_h == 48.0


def test_a_change_is_named_by_the_device_step_or_without_one_whatever_its_size():
    half = judge(setpoints={"temperature": 36.45})  # as far from 36.4 as from 36.5
    assert half.setpoints["temperature"] == 36.5 and half.clamped == ()
    small = judge(setpoints={"light": 9.2})
    assert small.setpoints["light"] == 9.0 and small.clamped == ("light",)
    assert small.reasons == ("light was asked to be 9.2 and is 9 (limits 0 to 9)",)


def test_the_flow_in_of_a_pump_that_is_not_ours_counts_as_it_is_read():
    limits = GateLimits(lower={"bleed_rate": 0.05}, upper={"bleed_rate": 0.6})
    asked = {"bleed_rate": 0.3}
    verdict = judge(limits, setpoints=asked, read_back={**asked, "perfusion_rate": 0.25})
    assert dict(verdict.setpoints) == {"bleed_rate": 0.25}
    assert verdict.reasons == ("bleed_rate 0.3 lowered to 0.25: it may not exceed perfusion_rate",)
    enough = judge(limits, setpoints=asked, read_back={**asked, "perfusion_rate": 0.35})
    assert dict(enough.setpoints) == asked and enough.reasons == ()


@pytest.mark.parametrize(
    ("into", "asked", "written"), [(0.52, 0.525, 0.52), (0.53, 0.525, 0.525), (0.57, 0.57, 0.57)]
)
def test_a_flow_in_that_a_32_bit_device_holds_is_the_one_of_its_grid(into, asked, written):
    assert float32(into) < into
    held = {"bleed_rate": asked, "perfusion_rate": float32(into)}
    verdict = judge(setpoints={"bleed_rate": asked}, read_back=held)
    assert dict(verdict.setpoints) == {"bleed_rate": written}
    assert len(verdict.reasons) == (written != asked)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lower": {"a": 0.0}, "upper": {"b": 1.0}}, "a lower and an upper limit; check a, b."),
        ({"max_rate": {"b": 1.0}}, "max_rate names b, which has no limits."),
        ({"max_rate": {"a": True}}, "max_rate of a is True; it must be above zero."),
        ({"origin": {"a": 0.5}}, "origin of a is 0.5; a finite number, of a control with a resol"),
        (
            {"origin": {"a": math.inf}, "resolution": {"a": 0.1}},
            "origin of a is inf; a finite number, of a control with a resolution, is needed.",
        ),
        ({"fallback_recipe": {"a": True}}, "sets a to True; allowed is 0 to 1."),
        ({"disarm_after_h": True}, "is needed [h]; given 30.0, 48.0, True"),
    ],
)
def test_limits_that_cannot_be_are_refused_with_names_and_numbers(changes, says):
    with pytest.raises(ConfigError) as error:
        GateLimits(**({"lower": {"a": 0.0}, "upper": {"a": 1.0}} | changes))
    assert says in str(error.value)


def test_a_device_whose_step_cannot_be_taken_is_named_with_the_reason():
    limits, notes = LIMITS.with_device({"light": Grid(20.0, 10.0), "bleed_rate": Grid(0.01)})
    assert limits is LIMITS
    assert notes == [
        "the device says steps of 20 for light: No multiple of the resolution 20 of light lies "
        "within its limits.",
        "bleed_rate is told to have steps of 0.005; the device says 0.01 from 0",
    ]
