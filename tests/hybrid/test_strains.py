"""Two strains in one vessel: each grows by itself, the rest is counted per both."""

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from perfusio_jax._core import ConfigError
from perfusio_jax.cli.process import in_words
from perfusio_jax.hybrid import HybridConfig, Vessel, fit_hybrid, forecast_over
from perfusio_jax.process import CONSORTIUM, MONOD_CHEMOSTAT, Process, Quantity, derive
from perfusio_jax.simulator import plain_monod
from perfusio_jax.states import Trajectory

from .test_vessel import step

PAIR = Process(
    name="pair",
    volume_L=1.0,
    biomass="A",
    strains=("B",),
    quantities=(
        Quantity(name="A", unit="g/L", hi=20.0, cv=0.03, floor=0.005),
        Quantity(name="B", unit="g/L", hi=20.0, cv=0.03, floor=0.005),
        Quantity(name="S", unit="g/L", hi=50.0, cv=0.03, floor=0.05),
    ),
)


def test_each_strain_grows_by_itself_and_the_rest_is_per_both():
    vessel = Vessel(PAIR)
    assert vessel.layout.growers == (0, 1) and vessel.layout.cells == 0
    a, b, q = 0.2, -0.05, -0.3
    found = step(vessel, [0.01, 6.0, 40.0], [], [a, b, q], 6.0, per_cell=[0, 0, 1])
    ends = [0.01 * np.exp(6 * a), 6.0 * np.exp(6 * b)]
    eaten = q * ((ends[0] - 0.01) / a + (ends[1] - 6.0) / b)
    np.testing.assert_allclose(found, [*ends, 40.0 + eaten], rtol=1e-3)


def runs(n, seed, *, noise=0.02):
    """Two strains on one sugar; inocula differ by factors of hundreds."""
    rng = np.random.default_rng(seed)
    hours = np.arange(0.0, 25.0, 2.0)
    made, true = [], []
    for k in range(n):

        def slope(_, y):
            mu = np.array([0.35, 0.2]) * y[2] / (np.array([4.0, 0.5]) + max(y[2], 1e-9))
            return [*(mu * y[:2] - 0.01 * y[:2]), -(mu @ y[:2]) / 0.45]

        start = [*np.exp(rng.uniform(np.log(0.005), np.log(4.0), 2)), rng.uniform(15, 35)]
        clean = solve_ivp(
            slope, (0, 24), start, t_eval=hours, method="LSODA", rtol=1e-8, atol=1e-10
        ).y.T
        seen = np.maximum(clean, 0.0) * np.exp(noise * rng.standard_normal(clean.shape))
        seen += 0.005 * rng.standard_normal(clean.shape)
        true.append(clean)
        made.append(
            Trajectory(
                seen, np.zeros((hours.size, 0)), np.full(hours.size, 1.0),
                np.floor(hours / 24).astype(int), PAIR.readings, (),
                run_id=f"r{k}", times_h=hours,
            )
        )  # fmt: skip
    return made, true


def test_a_strain_of_which_hardly_anything_is_there_does_not_come_from_the_other():
    """Counted per one of them, a trace of the second grew as fast as the first was dense."""
    train, _ = runs(8, 1)
    config = HybridConfig(n_particles=32, rounds=0)
    model, _ = fit_hybrid(
        train, process=PAIR, mech_model="none", key=jax.random.key(0), config=config
    )
    unseen, true = runs(4, 2)
    wrong = []
    for run, clean in zip(unseen, true, strict=True):
        begun = Trajectory(
            run.species[:3], run.controls[:3], run.volume_L[:3], run.days[:3], PAIR.readings, (),
            run_id="u", times_h=run.times_h[:3],
        )  # fmt: skip
        ahead = forecast_over([model], begun, [6.0, 10.0], {}, n_samples=64, seed=0)
        place = [ahead.names.index(n) for n in ("A", "B")]
        wrong.append(ahead.q50[:, place] - clean[[5, 7]][:, :2])
        # whatever is not known, no more biomass comes than there was sugar for
        assert np.all(ahead.mean[:, place] < 20.0), ahead.mean[:, place]
    spread = np.std(np.stack(true)[..., :2], axis=(0, 1))
    assert np.sqrt(np.mean(np.square(wrong), axis=(0, 1))).max() < 0.6 * spread.min()


def test_numbers_of_a_run_are_per_strain_and_per_both():
    hours = np.arange(5.0)
    x = np.stack([0.1 * np.exp(0.3 * hours), 2.0 * np.exp(-0.1 * hours)], axis=1)
    sugar = 30.0 - 0.5 * np.cumsum(np.concatenate([[0.0], x.sum(axis=1)[:-1]]))
    run = Trajectory(
        np.column_stack([x, sugar]), np.zeros((5, 0)), np.ones(5), np.zeros(5, int),
        PAIR.readings, (), run_id="r", times_h=hours,
    )  # fmt: skip
    found = derive(PAIR, run)
    names = [n.name for n in found.numbers]
    assert "growth_net" not in names and "q_B" not in names
    np.testing.assert_allclose(found.number("growth_net_A").values, 0.3, rtol=1e-6)
    np.testing.assert_allclose(found.number("growth_net_B").values, -0.1, rtol=1e-6)
    mean = np.diff(x, axis=0) / np.diff(np.log(x), axis=0)
    np.testing.assert_allclose(
        found.number("q_S").values, np.diff(sugar) / mean.sum(axis=1), rtol=1e-6
    )
    assert any("A + B, those of a strain itself" in line for line in in_words(PAIR))
    with pytest.raises(ConfigError, match="the strains biomass_1, biomass_2, and a Monod"):
        plain_monod(CONSORTIUM)


def test_what_strains_have_to_be_is_said():
    def with_strains(*names, **more):
        return PAIR.model_copy(update={**more}).model_dump() | {"strains": names}

    for strains, more, says in (
        (("S", "S"), {}, "name each strain once"),
        (("A",), {}, "the biomass not among them"),
        (("C",), {}, "C"),
        (("B",), {"biomass": None}, "biomass names none"),
    ):
        with pytest.raises(ConfigError, match=says):
            Process(**with_strains(*strains, **more))
    level = PAIR.quantity("B").model_copy(update={"kind": "level", "unit": "1"})
    with pytest.raises(
        ConfigError, match="strain B is a level quantity in 1; a carried one in g/L"
    ):
        Process(**{**with_strains("B"), "quantities": (PAIR.quantity("A"), level)})
    alone = PAIR.model_copy(update={"strains": ()})
    assert alone.differences(PAIR) == ["strains are none and B"]
    assert "strains" not in MONOD_CHEMOSTAT.model_dump_json()
    assert CONSORTIUM.strains == ("biomass_2",)
    assert Process(**CONSORTIUM.model_dump(mode="json")) == CONSORTIUM


def test_a_file_names_strains(tmp_path):
    PAIR.to_toml(tmp_path / "pair.toml")
    assert 'strains = [\n    "B",\n]' in (tmp_path / "pair.toml").read_text()
    assert Process.from_toml(tmp_path / "pair.toml") == PAIR
