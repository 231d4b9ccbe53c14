"""The size of the plant's compiled steps: a quotient written in another way can multiply it.

XLA's fusion on CPU computes a cheap value again in each place that reads it, and never repeats a
division. `factorise` relies on that. Counted are the instructions of the optimised program, those
inside of fusions with them: they depend on the compiler, and neither on the machine nor on the
flags that tests compile with.
"""

import re

import jax
import jax.numpy as jnp
import pytest

from perfusio_jax.mechanistic import Method, Reactor, advance_interval, day_inputs
from perfusio_jax.mechanistic.plant_step import plant_step
from tests.mechanistic.cases import START, random_controls

LANES = 8
MARGIN = 1.3
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = ", re.MULTILINE)

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="other devices have other fusions"
)


def n_instructions(function, *arguments):
    """Instructions of a batch's optimised program."""
    program = jax.jit(jax.vmap(function)).lower(*arguments).compile()
    return len(INSTRUCTION.findall(program.as_text()))


def batch():
    return jnp.tile(START, (LANES, 1)), jnp.asarray(random_controls(5, (LANES,)))


def test_a_rosenbrock_step_is_small():
    reactor = Reactor()

    def step(c, u, h):
        out = plant_step(reactor, day_inputs(reactor, u, 0.25), (*(0.25 * c), 0.25), h, Method())
        return out.y, out.error

    found = n_instructions(step, *batch(), jnp.full(LANES, 0.1))
    # 14 155; with products by reciprocals in place of quotients 50 414
    assert 1_000 < found < MARGIN * 14_155


def test_a_day_on_the_fixed_grid_is_small():
    reactor = Reactor()

    def day(c, u):
        return advance_interval(reactor, c, u, 24.0, volume_L=0.25)

    found = n_instructions(day, *batch())
    # 1 449; with both halves of a step written out 2 073, with that unrolled by three 7 311
    assert 200 < found < MARGIN * 1_449
