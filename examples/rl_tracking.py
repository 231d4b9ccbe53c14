"""A policy learns to hold two strains at their set-points, by light alone.

Two *E. coli* strains share a chemostat. Each lacks an amino acid that it makes only under light
of its own colour, so two lamps decide who grows. A small network sees the last two states and
lamps and sets the next; it learns by trial (REINFORCE) on a simulated plant. Its return
multiplies the nearness of both strains, so that it cannot buy one with the other. What it
reaches stands beside a lamp that is never changed. All cases, returns and controllers, without
Python:

    perfusio-jax rl case1
"""

# %%
import sys
from pathlib import Path

import perfusio_jax

perfusio_jax.enable_x64()

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax.rl import (
    SCENARIOS,
    MeanPolicy,
    Problem,
    TrainState,
    build,
    evaluate,
    returns_of,
    train,
    train_settings,
)
from perfusio_jax.viz import PALETTE, save_figure
from perfusio_jax.viz.theme import DASHES, describe, new_figure, themed

# %% [markdown]
# ## The problem
#
# An environment, the numbers of its plant, and a return. `SCENARIOS` holds the cases of the
# publication; the fourth asks for 3.5 g/L of both strains over 18 hours.
#
# ## The training
#
# `train` is one compiled function of a key: draw a batch of episodes, weigh each by how much
# better than the others it was, move the network, and again. So it can be mapped over seeds, too.
#
# The policy is random while it learns; what one would run is its mean.


# %%
class Constant(eqx.Module):
    """Lamps that are never changed: the policy to be better than."""

    setting: jax.Array

    def __call__(self, observed):
        """The same two numbers, and no spread."""
        return self.setting, jnp.zeros_like(self.setting)


def best_constant(problem: Problem, n: int) -> Constant:
    """The best of a grid of settings of both lamps, by the error."""
    values = jnp.linspace(-6.0, 3.0, n)
    pairs = jnp.stack(jnp.meshgrid(values, values), axis=-1).reshape(-1, 2)

    def error_of(pair):
        return evaluate(problem, Constant(pair), n=1, key=jax.random.key(0)).error[0]

    errors = jax.jit(jax.vmap(error_of))(pairs)
    return Constant(pairs[jnp.nanargmin(errors)])


@themed
def draw(
    hours: np.ndarray, runs: dict, reference: np.ndarray, curve: np.ndarray, path: Path
) -> None:
    """Biomasses and lamps under both policies, and the return while learning."""
    figure = new_figure(11.0, 3.6, "Two strains held at 3.5 g/L by light")
    cells, lamps, learning = figure.subplots(1, 3)
    colours = (PALETTE["twin"], PALETTE["target"])
    dashes = {"learned": DASHES[0], "best constant lamps": DASHES[1]}
    for name, seen in runs.items():
        for i, colour in enumerate(colours):
            words = f"strain {i + 1}, {name}"
            style = {"color": colour, "ls": dashes[name], "lw": 3.6 - 2.0 * i}
            cells.plot(hours, seen.tracked[0, :, i], label=words, **style)
            lamps.step(
                hours[:-1], seen.inputs[0, :, i], color=colour, ls=dashes[name], where="post"
            )
    cells.plot(hours, reference[:, 0], color=PALETTE["muted"], lw=1.0, label="set-point of both")
    cells.set_title("Biomass [g/L]")
    lamps.set_title("Light [W/m²]")
    lamps.set_yscale("log")
    learning.plot(np.arange(1, curve.size + 1), curve, color=PALETTE["ink"], lw=1.0)
    learning.set_title("Mean return [-]")
    learning.set_xlabel("Epoch")
    for axes in (cells, lamps):
        axes.set_xlabel("Time [h]")
        axes.set_xticks(np.arange(0.0, hours[-1] + 0.1, 3.0))
    handles, labels = cells.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=3)
    text = (
        "Biomass of two strains and the light on each, under a learned policy and constant lamps."
    )
    save_figure(describe(figure, text, is_printed=False), path)


# %% [markdown]
# ## All of it


# %%
def main(
    folder: Path, n_epochs: int = 1500, n_episodes: int = 100, n_grid: int = 25
) -> tuple[TrainState, dict[str, float]]:
    """Train, and compare with lamps that stand still.

    Args:
        folder: Where `tracking.png` goes.
        n_epochs: Most epochs.
        n_episodes: Episodes per epoch.
        n_grid: Settings of each lamp that are tried for the constant ones.

    Returns:
        The training, and the error of both policies [-].
    """
    folder.mkdir(parents=True, exist_ok=True)
    scenario = SCENARIOS[3]
    env, params = build(scenario)
    problem = Problem(env, params, returns_of(scenario)["saturation"])
    settings = train_settings(
        scenario, "saturation", n_epochs=n_epochs, n_episodes=n_episodes, is_single=False
    )
    state = eqx.filter_jit(train)(problem, settings, key=jax.random.key(0))
    print(f"{int(state.epoch)} epochs of {n_episodes} episodes; best in {int(state.best_epoch)}")

    policies = {
        "learned": MeanPolicy(state.best),
        "best constant lamps": best_constant(problem, n_grid),
    }
    runs, errors = {}, {}
    for name, policy in policies.items():
        found = evaluate(problem, policy, n=1, key=jax.random.key(1))
        runs[name] = jax.tree.map(np.asarray, found.episodes)
        errors[name] = float(found.error[0])
        last = runs[name].tracked[0, -1]
        print(f"  {name:20s} mean error {errors[name]:.3f}, ", end="")
        print(f"ends at {last[0]:.2f} and {last[1]:.2f} g/L")
    hours = float(params.step_h) * np.arange(env.n_steps + 1)
    curve = np.asarray(state.history.mean_return)[: int(state.epoch)]
    draw(hours, runs, np.asarray(params.reference), curve, folder / "tracking.png")
    return state, errors


if __name__ == "__main__":
    perfusio_jax.enable_compile_cache()  # the next time nothing is compiled again
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/rl_tracking"))
