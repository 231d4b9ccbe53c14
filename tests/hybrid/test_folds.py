"""Runs left out of campaigns that are sampled unevenly, or hardly at all."""

import jax
import numpy as np
import pytest

from perfusio_jax._core import DataError
from perfusio_jax.hybrid import cross_validate
from perfusio_jax.hybrid.campaign import in_steps
from perfusio_jax.states import Trajectory, usual_step_h

from .cultures import QUICK, YEAST, batch


def uneven(n_runs, short=()):
    """Runs with many short intervals and a few long ones, as around an induction.

    Args:
        n_runs: How many.
        short: Runs, by their place, of which there is the first sample only.
    """
    rng = np.random.default_rng(5)
    runs = []
    for k in range(n_runs):
        hours = np.array([0.0, 2.9, 5.8, 7.8, 8.3, 8.8, 9.3, 23.8])
        seen, _ = batch(rng, hours, 26.0 + k, [0.5, 40.0, 0.0])
        n = 1 if k in short else hours.size
        runs.append(
            Trajectory(
                seen[:n],
                np.full((n, 1), 26.0 + k),
                np.ones(n),
                np.floor(hours[:n] / 24).astype(int),
                YEAST.readings,
                YEAST.control_names,
                run_id=f"U{k}",
                times_h=hours[:n],
            )
        )
    return runs


def test_what_is_cut_into_steps_is_not_cut_again():
    runs = uneven(3)
    step_h = usual_step_h(runs)
    once = in_steps(runs, YEAST, step_h)
    assert usual_step_h(once) < step_h  # which is why the length has to be handed on
    again = in_steps(once, YEAST, step_h)
    assert [t.n_days for t in again] == [t.n_days for t in once]


def test_runs_of_long_and_short_intervals_can_be_left_out():
    runs = uneven(4)
    found = cross_validate(
        runs,
        key=jax.random.key(0),
        config=QUICK,
        n_folds=2,
        horizon=2,
        n_paths=8,
        mech_model="none",
        process=YEAST,
        step_h=6.0,
    )
    whole = max(t.n_days for t in in_steps(runs, YEAST))
    assert found.readings.shape == (4, whole, 3)
    assert sorted(np.bincount(found.fold_of_run)) == [2, 2]


def test_too_few_runs_with_two_samples_are_named_before_anything_is_fitted():
    with pytest.raises(DataError, match=r"2 of 3 runs .*\(one or none: U1\).*1 would be left"):
        cross_validate(
            uneven(3, short=(1,)), key=jax.random.key(0), config=QUICK, n_folds=3, process=YEAST
        )
