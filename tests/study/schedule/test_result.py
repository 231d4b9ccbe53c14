"""What is said of a schedule that was found."""

import numpy as np

from perfusio_jax.study.outputs import Output
from perfusio_jax.study.schedule.limits import Limit
from perfusio_jax.study.schedule.result import Kept, Schedule

CELLS = Output("integral", 0, -1, "integral of VCD", "1e6 cells/mL h")
WARMTH = Output("value", 1, -1, "last warmth", "degC")


def found(slack: float, price: float) -> Schedule:
    limit = Limit("last warmth <= 37", (WARMTH,), 37.0, -1.0)
    return Schedule(
        hours=np.array([0.0, 24.0]),
        names=("feed",),
        units=("mL/h",),
        controls=np.array([[1.0]]),
        moved=("feed",),
        objective=CELLS,
        is_largest=True,
        value=400.0,
        spread=0.0,
        n_draws=1,
        before=300.0,
        constant=350.0,
        kept=(Kept(limit, 37.0 - slack, WARMTH, slack, 1.0, price),),
        at_bounds=(),
        is_feasible=slack >= 0.0,
        is_converged=True,
        n_looks=1,
        n_failed=0,
    )


def test_units_are_written_as_people_write_them():
    assert found(0.0, 2.5).lines() == [
        "integral of VCD 400 10⁶ cells/mL h; it was 300 to begin with",
        "the best schedule without changes gives 350 10⁶ cells/mL h",
        "last warmth <= 37: reached; one °C of room more is worth 2.5 10⁶ cells/mL h (last warmth "
        "is 37 °C)",
    ]


def test_a_limit_is_kept_or_missed_by_a_number():
    assert found(1.0, 0.0).lines()[-1] == "last warmth <= 37: kept (last warmth is 36 °C)"
    missed = found(-1.0, 0.0).lines()
    assert missed[-1] == "last warmth <= 37: not kept by 1 (last warmth is 38 °C)"
    assert "no schedule was found that keeps all limits; this one comes nearest" in missed


def test_a_share_of_draws_is_told_where_there_are_several():
    missed = found(-1.0, 0.0)
    (limit,) = missed.kept
    one = missed._replace(kept=(limit._replace(share=0.0),))
    assert "draws" not in "\n".join(one.lines())
    several = one._replace(n_draws=4, kept=(limit._replace(share=0.25),))
    assert "in 25 % of the draws" in "\n".join(several.lines())
