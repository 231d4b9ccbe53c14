"""Is a model fit for use: by species, in one line, kept beside the model and about no other."""

import json

import numpy as np
import pytest

from perfusio_jax._core import STATE_ORDER, DataError
from perfusio_jax.hybrid import (
    HybridStateSpaceModel,
    Verdict,
    judge_fit,
    load,
    read_verdict,
    save,
    write_verdict,
)
from perfusio_jax.mechanistic import CHOPerfusionModel

NAN = float("nan")


def verdict():
    return Verdict(
        "a test",
        ("VCD", "Amm", "Glc", "Gln", "Pyr"),
        (0.3, 1.3, 0.2, NAN, 0.5),
        (0.9, 0.5, 0.4, NAN, 0.5),
        (0.8, 0.8, 0.31, NAN, NAN),
    )


def test_a_model_worse_than_nothing_changes_is_not_fit_and_what_was_not_read_is_not_judged():
    found = verdict()
    assert found.fit == ("VCD",)
    assert found.unfit == {
        "Amm": "error 1.3, 0.5 if nothing changed",
        "Glc": "80 % intervals hold 31 % of the readings",
        "Pyr": "error 0.5, 0.5 if nothing changed",
    }
    assert found.not_judged == ("Gln",)
    assert found.line().startswith("verdict (a test): fit for use: VCD. NOT fit for use: Amm (")
    assert found.line().count("\n") == 0 and "nan" not in found.line()


def test_a_verdict_stays_with_its_model_and_goes_with_the_next(tmp_path):
    model = HybridStateSpaceModel(CHOPerfusionModel(), None)
    save(model, tmp_path)
    assert read_verdict(model, tmp_path) is None
    path = write_verdict(verdict(), model, tmp_path)
    again = read_verdict(load(tmp_path), tmp_path)
    assert again is not None and again.line() == verdict().line()
    assert json.loads(path.read_text())["species"]["Gln"]["error"] is None
    other = HybridStateSpaceModel(CHOPerfusionModel(), None, dt_hours=12.0)
    with pytest.raises(DataError, match="another model"):
        read_verdict(other, tmp_path)
    save(other, tmp_path)  # an earlier model's verdict is not this one's
    assert read_verdict(other, tmp_path) is None
    path.write_text("{}")
    with pytest.raises(DataError, match="cannot be read"):
        read_verdict(other, tmp_path)


def test_a_fit_is_judged_by_runs_its_process_has_not_seen(fitted, runs):
    found = judge_fit(fitted[0], runs[0])
    assert found is not None and found.species == STATE_ORDER
    assert {"VCD", "Titer"} <= set(found.fit)  # both move many times more than the model errs
    assert np.all(np.isfinite(found.error)) and min(found.error) > 0.0
    with pytest.raises(DataError, match="judge it"):
        judge_fit(fitted[0], runs[0][:3])
    assert judge_fit(HybridStateSpaceModel(CHOPerfusionModel(), None), runs[0]) is None
