"""Small problems whose posterior is known on paper."""

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax.mechanistic import Mechanism, constant
from perfusio_jax.simulator import virtual_plant
from perfusio_jax.study import calibration_problem, described_experiment
from perfusio_jax.study.calibration.model import White
from perfusio_jax.study.identifiability.records import Records
from tests.study.cultures import one_quantity

HOURS = np.array([0.0, 2.0, 4.0, 7.0, 10.0])
SD = 0.5
START = 3.0
WIDTHS = np.array([0.2, 0.3])
"""Prior standard deviations of the constants."""
MIDDLES = np.array([0.5, 1.0])


class Line(Mechanism):
    """Two constants of which the readings know the sum: X = X_0 + (a + b V) t."""

    a: jax.Array = constant(0.5, unit="g/L/h", sd=0.2)
    b: jax.Array = constant(1.0, unit="g/L/h", sd=0.3)

    def rates(self, state, environment):
        return {"X": self.a + self.b * environment["volume_L"] + 0.0 * state["X"]}


def plant():
    """Any run of it."""
    made = virtual_plant(one_quantity(cv=0.0, floor=SD), Line(), rtol=1e-5, atol=1e-8)
    return described_experiment(made, HOURS, start=[START])


def slopes(hours=HOURS):
    """Readings by constants [prior standard deviations]; the vessel holds a litre."""
    return np.outer(hours, WIDTHS)


def records(readings, limits=None):
    """Runs with these readings `(R,T+1)`."""
    read = np.atleast_2d(readings)[..., None]
    n = len(read)
    none = np.full((*read.shape, 2), np.nan)
    return Records(
        start=jnp.full((n, 1), START),
        controls=jnp.zeros((n, HOURS.size - 1, 0)),
        lengths_h=jnp.tile(jnp.diff(jnp.asarray(HOURS)), (n, 1)),
        volume_L=jnp.ones(n),
        readings=jnp.asarray(read),
        limits=jnp.asarray(none if limits is None else limits),
    )


def problem(readings, **asked):
    """A problem with the first sample taken for true."""
    return calibration_problem(plant(), records(readings), starts_known=True, **asked)


def on_paper(readings):
    """Mean and covariance of the posterior [prior standard deviations], all runs together."""
    rows = np.atleast_2d(readings)
    away = rows - START - HOURS * MIDDLES.sum()
    seen = np.isfinite(away)
    precision, pull = np.eye(2), np.zeros(2)
    for one, there in zip(away, seen, strict=True):
        x = slopes()[there]
        precision += x.T @ x / SD**2
        pull += x.T @ one[there] / SD**2
    covariance = np.linalg.inv(precision)
    return covariance @ pull, covariance


def white(readings):
    """Coordinates of the posterior on paper."""
    mean, covariance = on_paper(readings)
    return White(jnp.asarray(mean), jnp.asarray(np.linalg.cholesky(covariance)))


def simulated(rng, z):
    """Readings of one run with these constants."""
    return START + HOURS * MIDDLES.sum() + slopes() @ z + SD * rng.standard_normal(HOURS.size)
