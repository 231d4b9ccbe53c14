"""The balance of volumes of a described culture at the gate: exact, on the grid, or held."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax._core import ConfigError
from perfusio_jax.process import (
    CHO_PERFUSION,
    MONOD_CHEMOSTAT,
    Control,
    Process,
    Quantity,
    Stream,
    volume_balance,
)
from perfusio_jax.twin import GateLimits, GateRequest, gate
from perfusio_jax.twin.decision.balancing import excess, lowered, row_of
from perfusio_jax.twin.decision.gate_limits import usual_step
from perfusio_jax.twin.decision.grid import Grid, exact
from tests.hybrid.cultures import CHEMOSTAT, FED

CELLS = Quantity(name="X", unit="g/L", hi=50.0)


def flow(name: str, unit: str = "vvd", hi: float = 2.0) -> Control:
    return Control(name=name, unit=unit, role="flow", lo=0.0, hi=hi, default=0.0)


def culture(*streams: Stream, unit: str = "vvd", **units: str) -> Process:
    names = [s.flow for s in streams if s.flow != "rest"]
    return Process(
        name="c",
        volume_L=2.0,
        quantities=(CELLS,),
        controls=tuple(flow(n, units.get(n, unit)) for n in names),
        streams=streams,
    )


def stream(name: str, direction: str, set_by: str) -> Stream:
    return Stream(name=name, direction=direction, flow=set_by)  # pyright: ignore


PERFUSED = culture(
    stream("medium", "in", "medium_rate"),
    stream("bleed", "out", "bleed_rate"),
    stream("purge", "out", "purge_rate"),
    stream("harvest", "out", "rest"),
)
DRAINED = culture(
    stream("feed", "in", "feed_rate"),
    stream("outlet", "out", "out_rate"),
    unit="L/h",
    out_rate="1/h",
)


def asked(limits: GateLimits, setpoints, read_back=None, **more) -> GateRequest:
    before = {n: 0.5 * (limits.lower[n] + limits.upper[n]) for n in limits.controls}
    settings = {"data_age_h": 1.0, "hours_without_good_data": 0.0, "armed": True}
    settings |= {"allow_write": True, **more}
    return GateRequest(setpoints, {**before, **(read_back or {})}, **settings)


def test_which_cultures_have_a_balance_that_set_points_can_break():
    assert volume_balance(MONOD_CHEMOSTAT, 24.0) is None and volume_balance(CHEMOSTAT, 6.0) is None
    assert volume_balance(FED, 24.0) is None, "nothing leaves"
    found = volume_balance(CHO_PERFUSION, 24.0)
    assert found is not None and not found.moves
    assert found.row() == ({"perfusion_rate": -1.0, "bleed_rate": 1.0}, 0.0)
    back = culture(
        stream("top", "in", "rest"), stream("acid", "in", "acid"), stream("bleed", "out", "bleed")
    )
    inward = volume_balance(back, 24.0)
    assert inward is not None and inward.row()[0] == {"acid": 1.0, "bleed": -1.0}
    moving = volume_balance(DRAINED, 12.0)
    assert moving is not None and moving.moves
    # out_rate [1/h] of 3 L is 3 L/h a unit; in 12 h 3 L and what enters may leave
    weights, spare = moving.row(3.0)
    assert weights == pytest.approx({"feed_rate": -1.0 / 3.0, "out_rate": 1.0})
    assert spare == pytest.approx(3.0 / 12.0 / 3.0)
    with pytest.raises(ConfigError, match="volume_L"):
        moving.row()


def test_more_that_leaves_than_enters_is_refused_and_what_rounding_adds_is_lowered():
    limits = GateLimits.from_process(PERFUSED, device_steps={"bleed_rate": 0.05})
    fine = {"medium_rate": 1.0, "bleed_rate": 0.6, "purge_rate": 0.4}
    assert gate(asked(limits, fine), limits).action == "write"
    found = gate(asked(limits, fine | {"purge_rate": 0.41}), limits)
    assert found.action == "hold"
    assert "bleed_rate 0.6 vvd, purge_rate 0.41 vvd would exceed medium_rate 1 vvd" in str(
        found.reasons
    )
    # the rate limit holds the medium up: what leaves follows it down, the largest first
    low = {"medium_rate": 0.4, "bleed_rate": 0.8, "purge_rate": 0.2}
    part = gate(asked(limits, {"medium_rate": 1.6, "bleed_rate": 1.4}, low), limits)
    assert part.action == "write" and part.setpoints["bleed_rate"] == 1.2
    assert "bleed_rate 1.4 lowered to 1.2" in str(part.reasons) and "bleed_rate" in part.clamped
    held = gate(asked(limits, {"medium_rate": 1.6, "bleed_rate": 1.0}, low), limits)
    assert held.action == "write" and held.setpoints["medium_rate"] == 1.4
    assert held.setpoints["bleed_rate"] == 1.0, "1.2 vvd leaves and 1.4 enters"
    slow = gate(
        asked(limits, {"medium_rate": 1.6, "bleed_rate": 1.4}, low, hours_since_write=3.0), limits
    )
    assert slow.action == "hold", "0.52 vvd may enter so soon, and 0.675 at least is bled"


def test_one_that_cannot_be_lowered_far_enough_is_held():
    limits = GateLimits.from_process(PERFUSED, max_change={"bleed_rate": 0.1})
    before = {"medium_rate": 1.0, "bleed_rate": 0.9, "purge_rate": 0.1}
    found = gate(asked(limits, {"medium_rate": 0.2}, before), limits)
    assert found.action == "hold" and "would exceed medium_rate" in found.reasons[-1]
    blind = gate(asked(limits, {"medium_rate": 1.0}, {"purge_rate": None}), limits)
    assert blind.action == "hold" and "purge_rate is unknown" in blind.reasons[-1]


def test_where_the_volume_moves_what_is_there_counts():
    limits = GateLimits.from_process(DRAINED, hours=10.0)
    wanted = {"feed_rate": 0.1, "out_rate": 0.1}
    # 2 L/h are out of 20 L, and 0.1 L/h enter: in 10 h 20 L go, 21 L were there
    assert gate(asked(limits, wanted, volume_L=20.0), limits).action == "write"
    # what leaves by vessel volumes leaves less of a smaller vessel
    assert gate(asked(limits, wanted, volume_L=2.0), limits).action == "write"
    fast = {"feed_rate": 0.1, "out_rate": 0.2}
    found = gate(asked(limits, fast, volume_L=20.0), limits)
    assert found.action == "hold" and "and what is in the vessel" in found.reasons[0]
    unknown = gate(asked(limits, fast), limits)
    assert unknown.action == "hold" and "the volume in the vessel is unknown" in unknown.reasons[0]


def test_limits_of_a_process():
    limits = GateLimits.from_process(CHEMOSTAT, max_change={"feed_S": 5.0})
    assert dict(limits.lower) == {"dilution": 0.0, "feed_S": 0.0} and limits.balance is None
    assert dict(limits.max_rate) == {"dilution": 0.25, "feed_S": 5.0}
    assert dict(limits.resolution) == {"dilution": 0.005, "feed_S": 0.5}
    assert limits.assumed == {"dilution", "feed_S"}
    fed = GateLimits.from_process(FED)
    assert fed.controls == ("feed_rate",), "a bolus is given, not held"
    for bad in ({"max_change": {"S_bolus": 1.0}}, {"device_steps": {"S_bolus": 1.0}}):
        with pytest.raises(ConfigError, match="S_bolus, a bolus"):
            GateLimits.from_process(FED, **bad)
    with pytest.raises(ConfigError, match="'feed' is no control of fed"):
        GateLimits.from_process(FED, max_change={"feed": 1.0})
    with pytest.raises(ConfigError, match="fallback recipe: bleed_rate 1 vvd.*would exceed"):
        GateLimits.from_process(
            PERFUSED,
            fallback_recipe={"medium_rate": 0.5, "bleed_rate": 1.0, "purge_rate": 0.0},
        )


@given(st.floats(1e-9, 1e9))
def test_a_usual_step_is_at_most_a_hundredth_and_at_least_a_fifth_of_it(span):
    step = Fraction(repr(usual_step(span)))
    share = exact(span) / 100
    assert step <= share and 5 * step >= share


STEPS = st.sampled_from([0.005, 0.01, 0.02, 0.05, 0.1])


@given(
    st.lists(st.floats(0.0, 2.0), min_size=3, max_size=3),
    st.lists(STEPS, min_size=3, max_size=3),
    st.floats(0.0, 2.0),
)
def test_whatever_is_lowered_keeps_balance_windows_and_grid(values, steps, reach):
    names = ("medium_rate", "bleed_rate", "purge_rate")
    row = row_of(volume_balance(PERFUSED, 24.0), None)
    assert row is not None
    grids = {n: Grid(s) for n, s in zip(names, steps, strict=True)}
    now = {n: exact(round(v / s) * s) for (n, v, s) in zip(names, values, steps, strict=True)}
    now = {n: exact(float(v)) for n, v in now.items()}
    windows = {n: (max(exact(0.0), now[n] - exact(reach)), now[n]) for n in names[1:]}
    found = lowered(now, windows, grids, row)
    if found is None:
        least = {n: windows[n][0] if n in windows else now[n] for n in names}
        loose = sum((exact(grids[n].step) for n in windows), Fraction(0))
        assert excess(least, *row) + loose > 0
        return
    after = {n: exact(found.get(n, float(now[n]))) for n in names}
    assert excess(after, *row) == 0
    for name, value in found.items():
        low, high = windows[name]
        assert low <= exact(value) <= high and value < float(now[name])
        assert exact(value) % exact(grids[name].step) == 0
    if excess(now, *row) == 0:
        assert found == {}


@given(st.floats(0, 2), st.floats(0, 2), st.floats(0, 2), st.floats(0, 2), st.floats(0.5, 48))
def test_nothing_the_gate_lets_through_breaks_the_balance(a, b, c, d, hours):
    limits = GateLimits.from_process(PERFUSED)
    before = {"medium_rate": round(max(a, b), 2), "bleed_rate": round(b, 2), "purge_rate": 0.0}
    wanted = {"medium_rate": c, "bleed_rate": min(c, d)}
    found = gate(asked(limits, wanted, before, hours_since_write=hours), limits)
    if found.is_write:
        after = {n: exact(found.setpoints.get(n, before[n])) for n in before}
        assert after["bleed_rate"] + after["purge_rate"] <= after["medium_rate"]
        assert all(found.setpoints[n] >= 0.0 for n in found.setpoints)
