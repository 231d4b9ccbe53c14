"""What a change within a run is worth on a true plant, by a model that does not know its constants.

The small version of `benchmarks.science.profiles`: a perfusion whose product is washed out with the
medium, so that much medium early and little late makes most of the same litres.
"""

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax.bed.goal.by_name import box_of, goal_of, limits_of
from perfusio_jax.bed.policy.campaign import propose_runs
from perfusio_jax.bed.policy.campaign_settings import CampaignSettings
from perfusio_jax.hybrid import HybridStateSpaceModel, Vessel, draw_paths
from perfusio_jax.hybrid.observation import AssayNoise
from perfusio_jax.hybrid.recipes import recipe_rollout
from perfusio_jax.mechanistic import Mechanism, constant
from perfusio_jax.process import Control, Process, Quantity, Stream
from perfusio_jax.simulator import virtual_plant
from perfusio_jax.simulator.virtual_runs import run_courses

DAYS = 6
PERFUSED = Process(
    name="washed",
    volume_L=1.0,
    biomass="X",
    quantities=(
        Quantity(name="X", unit="1e6 cells/mL", hi=100.0),
        Quantity(name="S", unit="g/L", hi=50.0),
        Quantity(name="P", unit="g/L", hi=10.0),
    ),
    controls=(Control(name="medium", unit="vvd", role="flow", lo=0.2, hi=4.0, default=1.0),),
    streams=(
        Stream(name="fresh", direction="in", flow="medium", carries={"S": 8.0}),
        Stream(name="harvest", direction="out", flow="rest", passes={"X": 0.0}),
    ),
)
START = [4.0, 6.0, 0.01]
MOST_L = 9.0
"""Medium that a run may use [L]."""


class Cells(Mechanism):
    """Growth on S; P by the cells."""

    mu: jax.Array = constant(0.03, unit="1/h")
    q: jax.Array = constant(0.002, unit="g/1e9 cells/h")

    def rates(self, state, environment):
        x, s = state["X"], jnp.maximum(state["S"], 0.0)
        eats = s / (0.5 + s)
        return {
            "X": self.mu * eats * x - 0.012 * (1.0 - eats) * x,
            "S": -0.008 * x * eats,
            "P": self.q * x,
        }


def true_titres(plans):
    """P at the end of runs on the true plant, for plans `(n,H)` of the medium."""
    plant = virtual_plant(PERFUSED, Cells())
    n = len(plans)
    out = run_courses(
        plant,
        jnp.tile(jnp.asarray(START), (n, 1)),
        jnp.asarray(plans)[:, :, None],
        jnp.full((n, DAYS), 24.0),
        jnp.ones(n),
        jnp.zeros(n),
    )
    assert not np.asarray(out.result).any()
    return np.asarray(out.states)[:, -1, 2]


def test_profiles_beat_the_best_held_recipe_at_equal_medium_on_the_plant():
    # the model's constants are off by a tenth, and its paths differ
    wrong = Cells(mu=jnp.asarray(0.027), q=jnp.asarray(0.0022))
    model = HybridStateSpaceModel(
        Vessel(PERFUSED, wrong, substeps=16),
        None,
        process_sd=np.array([0.0005, 0.0002, 0.00001]),
        assay=AssayNoise(cv=np.full(3, 0.05), floor=np.full(3, 0.01), via=None),
    )
    goal = goal_of("max P", PERFUSED, DAYS, layout=model.layout)
    limits = limits_of(
        [f"used(fresh) <= {MOST_L:g}"],
        PERFUSED,
        0.8,
        layout=model.layout,
        hours=[24.0] * DAYS,
    )
    asked = {
        "ofv": goal,
        "limits": box_of(PERFUSED, {}),
        "chance": limits,
        "q": 2,
        "settings": CampaignSettings(n_raw=32, n_children=32, widths=(0.2, 0.05), batch=16),
        "rollout": recipe_rollout,
    }
    paths = draw_paths(model, 8, key=jax.random.key(0), max_steps=DAYS)
    U, info = propose_runs(model, paths, jnp.asarray(START), (), profile=2, **asked)
    plans = np.asarray(U)[..., 0]
    used = plans.sum(axis=1)
    assert np.all(used <= MOST_L + 1e-6) and float(info.probability_kept.min()) == 1.0
    profiled = true_titres(plans)
    levels = np.linspace(0.2, MOST_L / DAYS, 60)
    held = true_titres(np.repeat(levels[:, None], DAYS, axis=1))
    best = int(np.argmax(profiled))
    at_most = held[levels * DAYS <= used[best] + 1e-9]
    # with the same litres or fewer, the best held recipe makes less by a fifth at least
    assert profiled[best] > 1.2 * at_most.max()
    assert plans[best][0] > plans[best][-1]  # much early, little late
    # the model saw that coming: what it expects of the profile is above its best held recipe
    assert float(info.mean[:, 0].max()) > 1.1 * float(info.profile.held_mean[0])
