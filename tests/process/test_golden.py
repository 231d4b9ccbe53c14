"""A golden batch: the band of chosen runs, missing readings, other hours, faults that are found."""

import numpy as np
import pytest
from scipy import stats

from perfusio_jax._core import DataError
from perfusio_jax.process import Process, Quantity, compare, golden_of
from perfusio_jax.states import Trajectory

NAMES = ("X", "S", "P", "Via")
CULTURE = Process(
    name="batch",
    volume_L=1.0,
    biomass="X",
    quantities=(
        Quantity(name="X", unit="1e6 cells/mL", hi=50.0, cv=0.05),
        Quantity(name="D", unit="1e6 cells/mL", hi=50.0, is_measured=False),
        Quantity(name="S", unit="g/L", hi=100.0, cv=0.04, floor=0.02),
        Quantity(name="P", unit="g/L", hi=100.0, cv=0.04, floor=0.02),
        Quantity(name="Via", unit="%", kind="derived", formula="viability", of=("X", "D"), hi=100.0,
                 cv=0.02),
    ),
)  # fmt: skip
DAILY = np.arange(0.0, 24.0 * 11, 24.0)


def run_of(name: str, values: np.ndarray, hours: np.ndarray = DAILY, names=NAMES) -> Trajectory:
    n = len(hours)
    return Trajectory(
        values, np.zeros((n, 0)), np.ones(n), np.arange(n), list(names), [], times_h=hours,
        run_id=name, reactor_id="R1",
    )  # fmt: skip


def course(rng: np.random.Generator, hours: np.ndarray = DAILY, noise: float = 0.04) -> np.ndarray:
    """Growth whose speed differs from run to run; what is eaten and made goes with it."""
    speed, eats = 1.0 + 0.08 * rng.normal(), 1.0 + 0.05 * rng.normal()
    day = hours / 24.0
    x = 2.0 + 1.5 * speed * day
    s = 40.0 - 1.6 * speed * eats * day
    p = 0.5 + 0.3 * speed * day
    via = 97.0 - 0.8 * day * speed
    table = np.stack([x, s, p, via], axis=1)
    return table * (1.0 + noise * rng.normal(size=table.shape) * np.array([1.0, 1.0, 1.0, 0.1]))


def references(n: int, seed: int = 1, **more) -> list[Trajectory]:
    rng = np.random.default_rng(seed)
    return [run_of(f"G{k}", course(rng, **more)) for k in range(n)]


def test_the_band_of_runs_sampled_alike_is_students_of_their_readings():
    runs = references(6)
    found = compare(golden_of(None, runs), run_of("N", course(np.random.default_rng(9))))
    table = np.stack([np.asarray(r.species) for r in runs])
    mean, spread = table.mean(axis=0), table.std(axis=0, ddof=1)
    np.testing.assert_allclose(found.band.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(found.band.spread, spread, rtol=1e-9)
    half = stats.t.ppf(0.975, 5) * np.sqrt(7 / 6) * spread
    np.testing.assert_allclose(found.high, mean + half, rtol=1e-9)
    np.testing.assert_allclose(found.low, np.maximum(mean - half, 0.0), rtol=1e-9)
    assert (found.band.n_runs == 6).all() and found.references == tuple(f"G{k}" for k in range(6))


def test_a_spread_is_never_below_the_noise_of_the_assay_and_viability_ends_at_100():
    twins = [run_of(f"G{k}", course(np.random.default_rng(3))) for k in range(4)]
    free, held = (golden_of(p, twins).law(DAILY) for p in (None, CULTURE))
    assert np.isnan(free.spread).all()  # no spread and no assay: nothing to measure by
    np.testing.assert_allclose(held.spread[:, 0], 0.05 * held.mean[:, 0])
    found = compare(golden_of(CULTURE, twins), run_of("N", course(np.random.default_rng(4))))
    assert found.high[:, 3].max() == 100.0 and found.high[:, 0].max() > 10.0
    told = compare(golden_of(None, twins), run_of("N", course(np.random.default_rng(4)))).notes
    assert any("tell no spread" in note for note in told)


def test_other_hours_and_lengths_count_as_far_as_they_go():
    rng = np.random.default_rng(5)
    lines = []
    for k, end in enumerate((240.0, 240.0, 240.0, 120.0)):
        hours = np.arange(3.0 * k, end + 1.0, 24.0)
        day = hours / 24.0
        values = np.stack([2.0 + day, 40.0 - day, 1.0 + day, 97.0 - day], axis=1)
        lines.append(run_of(f"L{k}", values + 0.01 * rng.normal(size=values.shape), hours))
    law = golden_of(None, lines).law(np.array([60.0, 200.0, 300.0]))
    # straight courses lie on straight lines between their samples, whatever the hours
    np.testing.assert_allclose(law.mean[:2, 0], [4.5, 2.0 + 200 / 24], atol=0.02)
    assert law.n_runs[0].tolist() == [4] * 4 and law.n_runs[1].tolist() == [3] * 4
    assert np.isnan(law.mean[2]).all() and not law.n_runs[2].any()


def test_a_gap_is_bridged_over_a_weekend_and_not_over_a_week():
    hours = np.array([0.0, 24.0, 48.0, 120.0, 144.0, 168.0, 360.0, 384.0])
    runs = [run_of(f"G{k}", np.stack([hours / 24.0 + k] * 4, axis=1), hours) for k in range(3)]
    law = golden_of(None, runs).law(np.array([84.0, 250.0]))
    np.testing.assert_allclose(law.mean[0], 4.5)
    assert np.isnan(law.mean[1]).all()


def test_the_band_of_a_reading_between_two_samples_is_no_narrower():
    """Noise alone: a straight line through readings would halve its variance in the middle."""
    rng = np.random.default_rng(7)
    hours = np.arange(0.0, 24.0 * 41, 24.0)
    runs = [run_of(f"G{k}", 10.0 + rng.normal(size=(41, 1)), hours, ("X",)) for k in range(30)]
    golden = golden_of(None, runs)
    at, between = (golden.law(h).spread[:, 0] for h in (hours, hours[:-1] + 12.0))
    assert np.mean(between**2) == pytest.approx(np.mean(at**2), rel=0.03)


def test_what_was_not_read_is_left_out_and_nothing_stands_in_for_it():
    golden = golden_of(CULTURE, references(8))
    values = course(np.random.default_rng(11))
    whole = compare(golden, run_of("N", values))
    gappy = values.copy()
    gappy[3, 1], gappy[5] = np.nan, np.nan
    found = compare(golden, run_of("N", gappy))
    assert found.n_read.tolist() == [4, 4, 4, 3, 4, 0, 4, 4, 4, 4, 4]
    assert np.isnan(found.t2[5]) and np.isnan(found.q[5]) and found.n_components[5] == 0
    assert np.isnan(found.t2_by[3, 1]) and np.isfinite(found.t2[3])
    others = [0, 1, 2, 4, 6, 7, 8, 9, 10]
    np.testing.assert_allclose(found.t2[others], whole.t2[others], rtol=1e-12)
    # the sample without S is the sample of three quantities
    three = compare(golden_of(CULTURE, references(8), ("X", "P", "Via")), run_of("N", values))
    np.testing.assert_allclose(found.t2[3], three.t2[3], rtol=1e-12)
    np.testing.assert_allclose(found.q_limits[3], three.q_limits[3], rtol=1e-12)
    np.testing.assert_allclose(np.nansum(found.t2_by, axis=1)[others], found.t2[others])


def test_a_broken_relation_is_seen_in_q_while_each_reading_lies_in_its_band():
    """Product that no longer goes with cells; cells and product both well inside their bands."""
    rng = np.random.default_rng(2)
    runs = references(20, seed=2, noise=0.005)
    golden = golden_of(None, runs)
    good = course(rng, noise=0.005)
    spread = golden.law(DAILY).spread
    odd = golden.law(DAILY).mean.copy()
    odd[6:, 0] += 1.3 * spread[6:, 0]
    odd[6:, 2] -= 1.3 * spread[6:, 2]
    found = compare(golden, run_of("N", odd))
    inside = (found.readings >= found.low) & (found.readings <= found.high)
    assert inside.all()
    assert (found.q[7:] > found.q_limits[7:, 1]).all()
    assert set(np.argsort(found.q_by[8])[-2:]) == {0, 2}
    fine = compare(golden, run_of("F", good))
    assert (fine.q[1:] > fine.q_limits[1:, 1]).mean() < 0.2


def test_false_alarms_of_whole_runs_with_sampling_of_their_own():
    """Further runs like the references, sampled hours apart from them."""
    rng = np.random.default_rng(13)
    over, count = np.zeros(2), 0
    for world in range(40):
        golden = golden_of(CULTURE, references(6, seed=100 + world))
        for _ in range(4):
            hours = DAILY[:-1] + rng.uniform(0.0, 20.0)
            found = compare(golden, run_of("N", course(rng, hours), hours))
            over += [
                (found.t2 > found.t2_limits[:, 0]).sum(),
                (found.q > found.q_limits[:, 0]).sum(),
            ]
            count += int(np.isfinite(found.t2).sum())
    share = over / count
    assert count > 1500 and ((share > 0.005) & (share < 0.10)).all(), share


def test_what_cannot_be_a_golden_batch_says_what_is_missing():
    with pytest.raises(DataError, match=r"2 reference runs were given \(G0, G1\)"):
        golden_of(None, references(2))
    apart = [run_of(f"G{k}", course(np.random.default_rng(k))[:, k : k + 1], DAILY, (NAMES[k],))
             for k in range(3)]  # fmt: skip
    with pytest.raises(DataError, match="no quantity was read"):
        golden_of(None, apart)
    runs = references(5)
    with pytest.raises(DataError, match="measured by itself"):
        compare(golden_of(None, runs), runs[2])
    stranger = run_of("N", np.ones((11, 1)), DAILY, ("pH",))
    with pytest.raises(DataError, match="reads nothing that the reference runs do"):
        compare(golden_of(None, runs), stranger)
    namesake = run_of("G2", course(np.random.default_rng(77)))
    assert np.isfinite(compare(golden_of(None, runs), namesake).t2).any()
    few = golden_of(CULTURE, [*runs[:2], run_of("G9", course(np.random.default_rng(8)))])
    more = np.hstack([course(np.random.default_rng(1)), np.full((11, 1), 7.0)])
    late = np.append(DAILY[:-1], 400.0)
    notes = " ".join(compare(few, run_of("N", more, late, (*NAMES, "pH"))).notes)
    assert "3 reference runs are few" in notes and "No band for pH" in notes
    assert "between 400 and 400 h" in notes
