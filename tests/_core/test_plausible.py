"""Ranges of every column: one place, and everybody reads it."""

import pytest

from perfusio_jax._core import AUXILIARY_TAGS, CONTROL_NAMES, REGISTRY, STREAM_TOTALS
from perfusio_jax._core.plausible import PLAUSIBLE, doubt
from perfusio_jax.chemistry import SpeciesRegistry
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE


def test_every_column_has_a_range():
    wanted = (*REGISTRY, *CONTROL_NAMES, *STREAM_TOTALS, *AUXILIARY_TAGS, "volume_L")
    assert sorted(PLAUSIBLE) == sorted(wanted)


def test_design_space_and_registry_read_it():
    for name, bound in DEFAULT_AMBR250_DESIGN_SPACE.species_bounds.items():
        assert (bound.lo, bound.hi) == PLAUSIBLE[name][:2]
    for species in SpeciesRegistry.DEFAULT:
        assert (species.lo, species.hi) == PLAUSIBLE[species.short_name][:2]
    for name, bound in DEFAULT_AMBR250_DESIGN_SPACE.control_bounds.items():
        assert PLAUSIBLE[name].lo <= bound.lo and bound.hi <= PLAUSIBLE[name].hi


@pytest.mark.parametrize(
    ("name", "low", "high", "is_odd"),
    [
        ("temperature", 36.0, 310.0, True),  # kelvin
        ("temperature", 97.7, 97.7, True),  # Fahrenheit
        ("temperature", 30.0, 37.5, False),
        ("pH", 0.71, 0.72, True),
        ("pH", 6.8, 7.3, False),
        ("DO", 40.0, 60.0, False),
        ("osmolality", 0.29, 0.31, True),  # Osm/kg
        ("volume_L", 240.0, 250.0, True),  # mL
        ("volume_L", 0.2, 5.0, False),
        ("V_sample_L", 2.0, 4.0, True),
        ("perfusion_rate", 60.0, 70.0, True),
        ("Via", 0.95, 0.99, True),  # a fraction
        ("Via", 0.0, 99.0, False),
        ("VCD", 0.0, 0.0004, True),
        ("VCD", 0.0, 0.0, False),
        ("time_h", -1.0, 1e9, False),
    ],
)
def test_what_lies_outside_is_pointed_out(name, low, high, is_odd):
    assert ("is the unit right?" in doubt(name, low, high)) == is_odd
