"""Which mechanisms are tried where none is named, and which is kept."""

from types import SimpleNamespace

import numpy as np
import pytest

from perfusio_jax.hybrid import NO_PLAIN, candidates, choice
from perfusio_jax.process import CHO_FED_BATCH, MONOD_CHEMOSTAT
from tests.hybrid.cultures import FED, YEAST
from tests.twin.described import FOREIGN


def renamed(process, old, new, **more):
    """The same culture with a quantity under another name."""
    text = process.model_dump_json(by_alias=True).replace(f'"{old}"', f'"{new}"')
    return type(process).model_validate_json(text).model_copy(update=more)


def test_the_laws_of_cho_cells_are_tried_where_names_allow_it():
    assert candidates(FOREIGN) == candidates(CHO_FED_BATCH) == ("monod", "none", "cho")
    for other in (MONOD_CHEMOSTAT, YEAST, FED, renamed(FOREIGN, "Glc", "Glucose")):
        assert candidates(other) == ("monod", "none")


def test_a_unit_that_is_none_of_theirs_leaves_them_out():
    quantities = [
        q.model_copy(update={"unit": "g/L"}) if q.name == "VCD" else q for q in FOREIGN.quantities
    ]
    dry = FOREIGN.model_copy(update={"quantities": tuple(quantities)})
    assert candidates(dry) == ("monod", "none")


@pytest.fixture
def fits(monkeypatch):
    """Fits that cost nothing: errors by mechanism, in parts of those if nothing changed."""
    errors, asked = {}, []

    def fit(runs, process, seed, mechanism, config):
        asked.append(mechanism)
        error = errors[mechanism]
        kinetics = None if mechanism == "none" or error is None else object()
        model = SimpleNamespace(mech_model=SimpleNamespace(kinetics=kinetics))
        verdict = SimpleNamespace(
            error=np.asarray([error or 1.0]), nothing_changes=np.asarray([1.0])
        )
        return choice.Fitted(model, None, verdict, mechanism)

    monkeypatch.setattr(choice, "_fit", fit)
    return errors, asked


@pytest.mark.parametrize("best", ["monod", "none", "cho"])
def test_the_best_is_kept_and_all_are_told(fits, best):
    errors, asked = fits
    errors.update({"monod": 0.6, "none": 0.7, "cho": 0.8} | {best: 0.25})
    found, (told,) = choice.fitted_best([], FOREIGN, seed=0)
    assert found.name == best and asked == ["monod", "none", "cho"]
    words = [f"{errors[name]:.2f} with {name}" for name in asked]
    assert told.startswith(f"mechanism: {best}.")
    assert f"{words[0]}, {words[1]} and {words[2]}" in told


def test_nothing_is_chosen_between_where_no_mechanism_can_be_made(fits):
    errors, _ = fits
    errors.update({"monod": None, "none": 0.5})  # no biomass: a Monod cannot be made
    found, told = choice.fitted_best([], YEAST, seed=0)
    assert found.name == "none" and told == [NO_PLAIN]
