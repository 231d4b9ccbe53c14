"""Double precision is demanded with a remedy and never flipped by an import."""

import jax
import pytest

from perfusio_jax._core import PrecisionError, enable_x64, is_x64_enabled, require_x64


@pytest.fixture
def narrow():
    """32-bit mode for the length of a test."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


def test_nothing_is_said_in_64_bit_mode():
    assert is_x64_enabled()
    require_x64("a fit")


def test_the_error_names_the_computation_and_both_switches(narrow):
    with pytest.raises(PrecisionError) as caught:
        require_x64("Fitting the model")
    message = str(caught.value)
    for part in ("Fitting the model", "perfusio_jax.enable_x64()", "JAX_ENABLE_X64=1"):
        assert part in message


def test_enabling_takes_effect(narrow):
    assert not is_x64_enabled()
    enable_x64()
    assert is_x64_enabled()
    require_x64("a fit")
