"""Result codes: every one has a cause and a remedy, and counts are right."""

import jax
import jax.numpy as jnp
import pytest

from perfusio_jax._core import (
    ConfigError,
    Result,
    describe,
    fraction_failed,
    is_success,
    summarise,
    worst,
)

CODES = jnp.array([0, 2, 0, 1, 2])


def test_codes_are_fixed():
    assert [(r.name, r.value) for r in Result] == [
        ("SUCCESS", 0),
        ("MAX_STEPS", 1),
        ("NONFINITE", 2),
        ("STEP_TOO_SMALL", 3),
        ("BAD_INPUT", 4),
        ("NOT_CONVERGED", 5),
    ]


@pytest.mark.parametrize("code", list(Result))
def test_every_code_says_what_and_what_to_do(code: Result):
    sentence = describe(jnp.asarray(code.value))
    assert sentence.startswith(code.name) and sentence.endswith(".")
    assert describe(code) == sentence
    assert code is Result.SUCCESS or len(sentence) > 80


def test_an_unknown_code_is_refused():
    with pytest.raises(ConfigError, match="unknown result code 9; the codes are 0=SUCCESS"):
        describe(9)


def test_batches_are_counted(strict_dtypes):
    assert is_success(CODES).tolist() == [True, False, True, False, False]
    assert float(fraction_failed(CODES)) == pytest.approx(0.6)
    assert float(fraction_failed(CODES.reshape(5, 1))) == pytest.approx(0.6)
    assert float(fraction_failed(jnp.zeros(0, int))) == 0.0
    assert int(worst(CODES)) == 2 and int(worst(jnp.zeros(0, int))) == 0
    assert float(jax.jit(fraction_failed)(CODES)) == pytest.approx(0.6)
    assert int(jax.jit(worst)(CODES)) == 2


def test_a_summary_names_each_cause_once():
    lines = summarise(CODES).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("1 of 5 lanes: MAX_STEPS")
    assert lines[1].startswith("2 of 5 lanes: NONFINITE")
    assert summarise(jnp.zeros(3, int)) == "all 3 lanes finished."
