"""Returns against numbers worked out by hand, and every refusal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.rl import quadratic, saturation, screening

REFERENCE = jnp.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
TRACKED = jnp.array([[9.0, 9.0], [2.0, 2.0], [1.0, 5.0]])
# squared errors: k = 1: 1, 0; k = 2: 0, 9; the first row does not count


def test_quadratic_by_hand():
    assert np.isclose(quadratic()(TRACKED, REFERENCE), -(1.0 + 9.0))
    assert np.isclose(quadratic([2.0, 3.0], [5.0, 7.0])(TRACKED, REFERENCE), -(2.0 + 63.0))
    mixed = quadratic([[1.0, 0.5], [0.5, 1.0]])
    assert np.isclose(mixed.stage(jnp.array([2.0, 4.0]), REFERENCE[0]), -(1.0 + 4.0 + 2.0))
    assert float(quadratic()(REFERENCE, REFERENCE)) == 0.0


def test_saturation_by_hand():
    # stage: 9/10 * 1; end: 1 * 9/18
    assert np.isclose(saturation(9.0)(TRACKED, REFERENCE), 0.9 + 0.5)
    assert np.isclose(saturation(9.0, 1.0, 3.0)(TRACKED, REFERENCE), 0.9 + 1.5)
    assert np.isclose(saturation(9.0, 0.0, 1.0)(TRACKED, REFERENCE), 0.5)
    assert np.isclose(saturation([9.0, 27.0], max_reward=2.0)(TRACKED, REFERENCE), 2 * (0.9 + 0.75))
    # at e = K one factor is one half, and perfect tracking gives m for every weight
    half = saturation(4.0).stage(jnp.array([3.0, 2.0]), REFERENCE[0])
    assert np.isclose(half, 0.5)
    assert np.isclose(saturation(3.0, 1.0, 2.0, max_reward=5.0)(REFERENCE, REFERENCE), 15.0)


def test_the_screening_is_one_vmapped_call():
    table = screening()
    assert len(table) == 13 and list(table)[-1] == "qc"
    assert {"tr__3", "1_sr_1_tr__27", "1_sr_3_tr__9"} < set(table)
    stacked = jax.tree.map(lambda *v: jnp.stack(v), *table.values())
    together = jax.vmap(lambda r: r(TRACKED, REFERENCE))(stacked)
    apart = [r(TRACKED, REFERENCE) for r in table.values()]
    np.testing.assert_allclose(together, jnp.stack(apart), rtol=1e-14)


def test_any_deviation_lowers_the_product():
    slope = jax.grad(lambda x: saturation(9.0)(x, REFERENCE))(TRACKED)
    assert np.all(np.isfinite(slope)) and np.all(slope[0] == 0.0)
    assert slope[1, 0] < 0.0 and slope[2, 1] < 0.0 and slope[1, 1] == 0.0


def test_refusals():
    for wrong in (0.0, -1.0, float("nan"), [9.0, 0.0]):
        with pytest.raises(ConfigError, match="K is"):
            saturation(wrong)
    for weights in ((0.0, 0.0), (-1.0, 1.0), (float("nan"), 1.0)):
        with pytest.raises(ConfigError, match="weights are"):
            saturation(9.0, *weights)
    with pytest.raises(ConfigError, match="largest reward"):
        saturation(9.0, max_reward=0.0)
    with pytest.raises(ConfigError, match="all weights are zero"):
        quadratic(0.0)
    with pytest.raises(ConfigError, match="negative eigenvalues"):
        quadratic([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ConfigError, match="symmetric"):
        quadratic([[1.0, 0.0], [0.5, 1.0]])
    with pytest.raises(ConfigError, match="shape"):
        quadratic([[1.0, 0.0]])
    with pytest.raises(ConfigError, match="shapes"):
        quadratic([1.0, 1.0], np.eye(3))
