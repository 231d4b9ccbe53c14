"""Configuration: complete, round-tripped, and refused by name when it cannot be used."""

import importlib
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfusio_jax._core import CONTROL_NAMES, ConfigError, PerfusioError, UnitError
from perfusio_jax._core.units import canonical_unit, is_canonical
from perfusio_jax.config import (
    DEFAULT_AMBR250_DESIGN_SPACE,
    AcquisitionName,
    AlarmConfig,
    ControlBounds,
    DesignSpace,
    RunConfig,
    SpeciesBounds,
    TwinConfig,
)

SPACE = DEFAULT_AMBR250_DESIGN_SPACE


def bounds(lo: float, hi: float, unit: str = "vvd", **more) -> ControlBounds:
    return ControlBounds(lo=lo, hi=hi, unit=unit, **more)


def space(**controls: ControlBounds) -> DesignSpace:
    return DesignSpace(name="s", control_bounds=controls)


# ---------------------------------------------------------------- defaults


@pytest.mark.parametrize(
    ("viability_min", "given", "warning", "critical"),
    [
        (95.0, {}, 97.0, 95.0),
        (90.0, {}, 92.0, 90.0),
        (99.0, {}, 100.0, 99.0),
        (0.0, {}, 2.0, 0.0),
        (90.0, {"viability_warning": 97.0}, 97.0, 90.0),
        (90.0, {"viability_warning": 89.0}, 89.0, 89.0),
        (90.0, {"viability_critical": 94.0}, 94.0, 94.0),
        (90.0, {"viability_critical": 80}, 92.0, 80.0),
    ],
)
def test_viability_alarms_follow_the_lowest_acceptable_one(viability_min, given, warning, critical):
    """A limit of 90 % and an alarm at 97 % on the day of inoculation contradict each other."""
    space = SPACE.replace(viability_min=viability_min)
    alarms = TwinConfig(design_space=space, alarms=given).alarms
    assert (alarms.viability_warning, alarms.viability_critical) == (warning, critical)
    assert alarms.model_fields_set == set(given), "what follows is not taken for chosen"
    moved = TwinConfig(design_space=space, alarms=given).replace(
        design_space=SPACE.replace(viability_min=50.0)
    )
    if not given:
        assert moved.alarms.viability_warning == 52.0


def test_glucose_and_ammonium_alarms_contradict_no_design_space():
    default = TwinConfig(design_space=DEFAULT_AMBR250_DESIGN_SPACE).alarms
    assert default == AlarmConfig(), "the default design space has the default limits"
    low = DEFAULT_AMBR250_DESIGN_SPACE
    bounds = {**low.control_bounds, "glucose_setpoint": ControlBounds(lo=0.8, hi=4, unit="g/L")}
    species = {**low.species_bounds, "Amm": SpeciesBounds(lo=0, hi=6, unit="mmol/L")}
    space = low.replace(control_bounds=bounds, species_bounds=species)
    alarms = TwinConfig(design_space=space).alarms
    assert alarms.glucose_warning == pytest.approx(0.4)  # a culture held at 0.8 g/L is no alarm
    assert alarms.glucose_critical == pytest.approx(0.12)
    assert (alarms.ammonium_warning, alarms.ammonium_critical) == (6.0, 6.0)
    chosen = TwinConfig(design_space=space, alarms={"ammonium_critical": 5, "glucose_warning": 0.1})
    assert (chosen.alarms.ammonium_warning, chosen.alarms.glucose_critical) == (5.0, 0.1)


@pytest.mark.parametrize("alarms", ["loud", 3, {"viability_warning": "high"}, {"viability": 9}])
def test_alarms_that_are_none_are_still_refused(alarms):
    with pytest.raises(ConfigError, match="alarms|viability"):
        TwinConfig(design_space=SPACE, alarms=alarms)


def test_default_space_has_the_six_controls_in_array_order():
    assert SPACE.control_names == list(CONTROL_NAMES)
    lower, upper = SPACE.bounds_array
    np.testing.assert_array_equal(lower, [0.5, 0.05, 2.0, 35.0, 700.0, 0.0])
    np.testing.assert_array_equal(upper, [2.0, 0.30, 8.0, 37.5, 1050.0, 5.0])
    assert lower.dtype == jnp.float64
    assert SPACE.n_controls == 6
    assert SPACE.vcv_target == 14.0 and SPACE.titer_target is None
    assert SPACE.viability_min == 95.0
    assert SPACE.centre["agitation"] == 875.0
    assert not SPACE.needs_bleed_constraint
    assert SPACE.species_names[:3] == ["VCD", "VCV", "Via"]


def test_run_defaults_are_those_of_the_reference():
    run = RunConfig()
    assert (run.seed, run.device, run.dtype) == (None, "cpu", "float64")
    assert (run.n_mc_samples, run.n_restarts, run.raw_samples) == (256, 10, 512)
    assert (run.log_level, run.allow_write) == ("INFO", False)
    assert (run.duration_days, run.sampling_interval_hours, run.retrain_every) == (14, 24.0, 1)
    assert run.acquisition == "qLogEI"
    assert run.jax_device == jax.devices("cpu")[0]
    assert run.jax_dtype == jnp.float64
    assert run.make_key() is None


def test_alarm_defaults_are_those_of_the_reference():
    alarms = AlarmConfig()
    assert (alarms.viability_warning, alarms.viability_critical) == (97.0, 95.0)
    assert (alarms.ammonium_warning, alarms.ammonium_critical) == (8.0, 12.0)
    assert (alarms.glucose_warning, alarms.glucose_critical) == (1.0, 0.3)
    assert (alarms.notification_channel, alarms.alarm_file) == ("log", None)


def test_the_seed_makes_the_key():
    first, again = RunConfig(seed=7).make_key(), RunConfig(seed=7).make_key()
    other = RunConfig(seed=8).make_key()
    assert first is not None and again is not None and other is not None
    assert jax.random.uniform(first) == jax.random.uniform(again)
    assert jax.random.uniform(first) != jax.random.uniform(other)


def test_bounds_default_to_hard():
    assert bounds(0, 1).hard_lower and bounds(0, 1).hard_upper
    assert not bounds(0, 1, hard_upper=False).hard_upper


# ---------------------------------------------------------------- round trips

finite = st.floats(-1e6, 1e6, allow_subnormal=False)
text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)


@st.composite
def spaces(draw: st.DrawFn) -> DesignSpace:
    controls = {}
    for name in draw(st.lists(st.sampled_from(CONTROL_NAMES[2:]), unique=True)):
        lo = draw(finite)
        controls[name] = ControlBounds(
            lo=lo,
            hi=lo + draw(st.floats(1, 100)),
            unit=canonical_unit(name),
            description=draw(text),
            hard_lower=draw(st.booleans()),
        )
    return DesignSpace(
        name=draw(text.filter(bool)),
        control_bounds=controls,
        viability_min=draw(st.floats(0, 100)),
        vcv_target=draw(st.none() | st.floats(1, 50)),
        titer_target=draw(st.none() | st.floats(1, 1e4)),
    )


@given(spaces())
def test_any_design_space_survives_toml_and_json(made: DesignSpace):
    assert DesignSpace.from_toml(made.to_toml()) == made
    assert DesignSpace.from_json(made.to_json()) == made
    assert DesignSpace.from_toml(made.to_toml()).control_names == made.control_names


@pytest.mark.parametrize(
    "made",
    [
        SPACE,
        RunConfig(),
        RunConfig(seed=3, acquisition="LogEI", allow_write=True),
        AlarmConfig(),
        AlarmConfig(notification_channel="file", alarm_file=Path("a/alarms.log")),
        TwinConfig(design_space=SPACE, run=RunConfig(seed=1)),
        bounds(0.0, 1.0),
        SpeciesBounds(lo=0, hi=1, unit="g/L"),
    ],
)
def test_files_round_trip(made, tmp_path: Path):
    kind = type(made)
    for suffix in ("toml", "json"):
        path = tmp_path / f"c.{suffix}"
        text = getattr(made, f"to_{suffix}")(path)
        assert path.read_text() == text
        assert getattr(kind, f"from_{suffix}")(path) == made
        assert getattr(kind, f"from_{suffix}")(str(path)) == made
        assert getattr(kind, f"from_{suffix}")(text) == made


def test_replace_checks_like_a_constructor():
    assert SPACE.replace(vcv_target=12.0).vcv_target == 12.0
    assert SPACE.vcv_target == 14.0
    with pytest.raises(ConfigError, match="vcv_target=70 lies outside the bounds of VCV"):
        SPACE.replace(vcv_target=70.0)
    with pytest.raises(ConfigError, match="unknown key 'vcv'"):
        SPACE.replace(vcv=12.0)


def test_configuration_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        SPACE.vcv_target = 10.0


# ---------------------------------------------------------------- units


@pytest.mark.parametrize(
    "unit", ["1e6 cells/mL", "10^6 cells mL^-1", "10⁶ cells mL⁻¹", "million cells/mL"]
)
def test_any_spelling_of_the_canonical_unit_is_accepted(unit: str):
    made = SpeciesBounds(lo=0.0, hi=100.0, unit=unit)
    assert DesignSpace(name="s", species_bounds={"VCD": made}).species_bounds["VCD"].unit == unit


def test_a_unit_that_measures_something_else_is_refused_by_name():
    with pytest.raises(UnitError, match=r"control 'temperature' is measured in 'degC'.*'rpm'"):
        space(temperature=bounds(35, 37, "rpm"))
    with pytest.raises(UnitError, match="species 'Glc'"):
        DesignSpace(name="s", species_bounds={"Glc": SpeciesBounds(lo=0, hi=1, unit="%")})


def test_a_convertible_unit_is_refused_with_the_numbers_to_write():
    with pytest.raises(UnitError, match=r"lo=35, hi=37, unit='degC'"):
        space(temperature=bounds(308.15, 310.15, "K"))
    with pytest.raises(UnitError, match=r"lo=0.05, hi=0.3, unit='vvd'"):
        space(bleed_rate=bounds(0.05 / 24, 0.3 / 24, "1/h"))


def test_names_are_checked():
    with pytest.raises(ConfigError, match="'Temperature' is not known. Did you mean 'temperature'"):
        space(Temperature=bounds(35, 37, "degC"))
    with pytest.raises(ConfigError, match="Did you mean 'bleed_rate'"):
        space(bleed=bounds(0.1, 0.2))
    with pytest.raises(ConfigError, match="needs a unit"):
        space(light_blue=bounds(0.1, 0.2, " "))
    assert space(light_blue=bounds(0.1, 0.2, "W/m^2")).control_names == ["light_blue"]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bounds(2, 1), "inverted or empty: lo=2 must be below hi=1"),
        (lambda: bounds(1, 1), "inverted or empty"),
        (lambda: SpeciesBounds(lo=2, hi=1, unit="g/L"), "inverted"),
        (lambda: bounds(float("nan"), 1), "'lo' was given nan"),
        (lambda: bounds(0, float("inf")), "'hi' was given inf"),
        (lambda: bounds(0, 1, hard=True), r"unknown key 'hard'. Did you mean 'hard_\w+'"),
        (lambda: DesignSpace(), "'name' is missing"),
        (lambda: DesignSpace(name=""), "'name' was given ''"),
        (lambda: DesignSpace(nam="a"), r"unknown key 'nam'. Did you mean 'name'"),
        (lambda: DesignSpace(name="a", viability_min=101), "'viability_min' was given 101"),
        (lambda: DesignSpace(name="a", vcv_target=-1), "'vcv_target' was given -1"),
        (lambda: DesignSpace(name="a", titer_target=0), "'titer_target' was given 0"),
        (lambda: RunConfig(n_restart=3), "unknown key 'n_restart'. Did you mean 'n_restarts'"),
        (lambda: RunConfig(dtype="float16"), "'float32' or 'float64'"),
        (lambda: RunConfig(device="quantum"), "'device' was given 'quantum'"),
        (lambda: RunConfig(seed=-1), "'seed' was given -1"),
        (lambda: RunConfig(n_mc_samples=0), "'n_mc_samples' was given 0"),
        (lambda: RunConfig(duration_days=0), "'duration_days' was given 0"),
        (lambda: RunConfig(sampling_interval_hours=0), "'sampling_interval_hours' was given 0"),
        (lambda: RunConfig(retrain_every=0), "'retrain_every' was given 0"),
        (lambda: RunConfig(acquisition="magic"), "'acquisition' was given 'magic'"),
        (lambda: RunConfig(log_level="LOUD"), "'log_level' was given 'LOUD'"),
        (lambda: AlarmConfig(viability_warning=90), "viability_warning=90.*inverted"),
        (lambda: AlarmConfig(ammonium_warning=13), "ammonium_warning=13.*inverted"),
        (lambda: AlarmConfig(glucose_critical=2), "glucose_critical=2 are inverted"),
        (lambda: AlarmConfig(notification_channel="file"), "needs alarm_file"),
        (lambda: AlarmConfig(notification_channel="fax"), "'notification_channel' was given 'fax'"),
    ],
)
def test_what_cannot_be_used_is_refused_when_it_is_made(make, message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert isinstance(caught.value, PerfusioError) and isinstance(caught.value, ValueError)


def test_bleed_above_perfusion_is_refused():
    perfusion = bounds(0.5, 2.0)
    for bleed in (bounds(0.6, 0.7), bounds(0.1, 2.5), bounds(2.1, 3.0)):
        with pytest.raises(ConfigError, match="bleed above perfusion"):
            space(perfusion_rate=perfusion, bleed_rate=bleed)
    tight = space(perfusion_rate=bounds(0.2, 2.0), bleed_rate=bounds(0.1, 0.3))
    assert tight.needs_bleed_constraint


def test_a_space_without_controls_cannot_be_searched():
    with pytest.raises(ConfigError, match="'s' has no controls"):
        _ = space().bounds_array
    assert space().centre == {}


def test_a_device_that_is_not_here_is_refused_when_it_is_asked_for():
    with pytest.raises(ConfigError, match="'cpu:99' does not exist"):
        _ = RunConfig(device="cpu:99").jax_device
    with pytest.raises(ConfigError, match="not available"):
        _ = RunConfig(device="tpu").jax_device


NESTED = """
[design_space]
name = "a"
[design_space.control_bounds.bleed_rate]
lo = 0.3
hi = 0.1
unit = "vvd"
"""


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda: TwinConfig.from_toml(NESTED), r"control_bounds\.bleed_rate: .*lo=0.3"),
        (lambda: RunConfig.from_toml("seed = = 1"), "the given text is not TOML"),
        (lambda: RunConfig.from_json("{"), "the given text is not JSON"),
        (lambda: RunConfig.from_json("[1]"), "holds a list; a RunConfig is a table of seed"),
        (lambda: RunConfig.from_toml("nowhere.toml"), r"nowhere\.toml does not exist"),
        (lambda: RunConfig.from_json(Path("nowhere.json")), r"nowhere\.json does not exist"),
        (lambda: RunConfig.from_toml("sede = 1"), "the given text: RunConfig: unknown key 'sede'"),
        (lambda: RunConfig.from_toml(Path("/")), "cannot be read"),
    ],
)
def test_files_that_cannot_be_used_are_named(load, message: str):
    with pytest.raises(ConfigError, match=message):
        load()


def test_default_ranges_are_those_of_the_species_registry():
    registry = importlib.import_module("perfusio_jax.chemistry").SpeciesRegistry.DEFAULT
    assert {s.short_name for s in registry.measured} <= set(SPACE.species_names)
    for name, bound in SPACE.species_bounds.items():
        assert (bound.lo, bound.hi) == (registry[name].lo, registry[name].hi), name
        assert is_canonical(registry[name].unit, name)


def test_a_run_may_ask_for_every_acquisition_there_is():
    module = importlib.import_module("perfusio_jax.bed.acquisition.acquisitions")
    names = module.ACQUISITION_NAMES + module.OWN_ACQUISITIONS
    assert get_args(AcquisitionName) == names
    for name in names:
        assert RunConfig.from_toml(f'acquisition = "{name}"\n').acquisition == name
    with pytest.raises(ConfigError, match="qLogNEHVI"):
        RunConfig.from_toml('acquisition = "qLogNEHV"\n')
