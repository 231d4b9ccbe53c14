"""Daily decisions by experimental design: one reactor, then a rack, on the hybrid model itself.

Simulates a small campaign, fits the hybrid model, estimates the state of three running
reactors and recommends set-points that bring the cell volume to its target with the viability
kept. Each recommendation comes with its reasons; one is asked for again with two set-points
held by the operator, and once more after the design space has changed. The forecasts of the
three, with and without the recommended change, are drawn in `decisions.png`.
"""

# %%
import sys
from collections.abc import Sequence
from pathlib import Path

import perfusio_jax

perfusio_jax.enable_quick_compile()  # it is over soon
perfusio_jax.enable_x64()

import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import CONTROL_NAMES
from perfusio_jax.bed import ROLLOUT_SETTINGS, BEDDecision, BEDPolicy, ReactorNow
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.hybrid import HybridConfig, assimilate_run, fit_hybrid
from perfusio_jax.simulator import (
    NoiseModel,
    campaign_design,
    initial_state,
    simulate_campaign,
    to_trajectories,
    virtual_reactor,
)
from perfusio_jax.viz import PALETTE, save_figure
from perfusio_jax.viz.parts import band, legend_entry
from perfusio_jax.viz.theme import DASHES, day_axis, describe, label, new_figure, themed

SPACE = DEFAULT_AMBR250_DESIGN_SPACE.replace(vcv_target=12.0, viability_min=90.0)


# %% [markdown]
# ## A campaign, and a design space
#
# `SPACE` says between which values set-points may be chosen, which cell volume is wanted (12 %)
# and below which viability nothing counts (90 %).


# %%
def simulated_runs(n_runs: int, n_days: int):
    """Runs of virtual clone X at the recipes of a Box-Behnken design."""
    design = jnp.asarray(campaign_design(seed=0)[-n_runs:])
    readings = simulate_campaign(
        virtual_reactor("CloneX"),
        jnp.broadcast_to(initial_state(), (n_runs, 10)),
        jnp.broadcast_to(design[:, None, :], (n_runs, n_days, 6)),
        NoiseModel(),
        key=jax.random.key(0),
    )
    return to_trajectories(readings, clone_ids=["CloneX"] * n_runs)


# %% [markdown]
# ## What a decision says of itself
#
# A `BEDDecision` holds more than numbers: what each moved set-point is worth by itself, how
# probable it is that each limit is kept on all days ahead, what lies at a bound, which
# alternatives were found, and the forecast both with the decision and without it.


# %%
def show(decision: BEDDecision) -> None:
    """The recommendation and why."""
    why = decision.explanation
    name = decision.reactor_id or "reactor"
    print(f"{name}, day {decision.day}: OFV {why['ofv_unchanged']:.2f} -> {why['ofv']:.2f}")
    for control, value in decision.recommended_controls.items():
        gain = why["move_gains"][control]
        print(f"  {control:18s} {value:8.3f}   worth {gain:+.4f}")
    low, high = decision.forecast_q10["VCV"], decision.forecast_q90["VCV"]
    print("  VCV in 3 days", f"{low[-1]:.1f} to {high[-1]:.1f} %")
    for limit in why["constraints"]:
        print(f"  {limit['limit']} kept with probability {limit['probability']:.2f}")
    print(f"  at a bound: {', '.join(why['at_lower_bound'] + why['at_upper_bound']) or 'none'}")
    print(f"  {len(why['alternatives'])} alternatives, the best at OFV ", end="")
    print(", ".join(f"{a['ofv']:.2f}" for a in why["alternatives"]))


@themed
def draw(decisions: Sequence[BEDDecision], path: Path) -> None:
    """Forecasts of cell volume and viability, with the decision and without it."""
    rows = (("VCV", SPACE.vcv_target), ("Via", SPACE.viability_min))
    figure = new_figure(2.7 * len(decisions) + 1.2, 5.2, "Three days ahead, decided and unchanged")
    grid = figure.subplots(2, len(decisions), sharex="col", sharey="row", squeeze=False)
    for column, decision in enumerate(decisions):
        forecasts = len(decision.forecast_mean["VCV"])
        days = decision.day + 1.0 + np.arange(forecasts)
        for axes, (name, line) in zip(grid[:, column], rows, strict=True):
            low, high = (
                np.asarray(f[name]) for f in (decision.forecast_q10, decision.forecast_q90)
            )
            band(axes, days, low, high)
            axes.plot(days, decision.forecast_mean[name], "o-", color=PALETTE["twin"], ms=4)
            unchanged = decision.explanation["forecast_unchanged"]["mean"][name]
            axes.plot(days, unchanged, color=PALETTE["muted"], ls=DASHES[1], lw=1.5)
            axes.axhline(line, color=PALETTE["target"], ls=DASHES[2], lw=1.4)
            day_axis(axes, days[0], days[-1], show_label=name == "Via")
            axes.set_xlim(days[0] - 0.2, days[-1] + 0.2)
        grid[0, column].set_title(decision.reactor_id or "reactor")
    for axes, (name, _) in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(label(name))
    handles = [
        legend_entry("line", "decided, mean", PALETTE["twin"]),
        legend_entry("band", "10-90 % of the paths", PALETTE["band"]),
        legend_entry("dashes", "set-points unchanged", PALETTE["muted"]),
        legend_entry("dots", "target, lowest viability", PALETTE["target"]),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=4)
    text = (
        f"Forecast cell volume and viability of {len(decisions)} reactors, decided and unchanged."
    )
    save_figure(describe(figure, text, is_printed=False), path)


# %% [markdown]
# ## Decide, hold, limit
#
# The whole rack is decided at once: each vessel has its own state, the model is shared. `fixed`
# holds set-points that the operator has taken over; `with_space` continues with another design
# space.


# %%
def main(
    n_runs: int = 9,
    n_days: int = 10,
    n_paths: int = 32,
    config: HybridConfig | None = None,
    folder: Path | None = None,
) -> list[BEDDecision]:
    """Fit, estimate, decide.

    Args:
        n_runs: Runs of the campaign.
        n_days: Their length [d].
        n_paths: Roll-out paths of a decision.
        config: Settings of the fit.
        folder: Where `decisions.png` goes; no figure if None.

    Returns:
        All decisions.
    """
    runs = simulated_runs(n_runs, n_days)
    model, _ = fit_hybrid(runs, key=jax.random.key(0), config=config or HybridConfig())

    # three reactors on day 6; here they are runs of the campaign
    rack = []
    for k, run in enumerate(runs[:3]):
        beliefs = assimilate_run(model, run, key=jax.random.key(k), length=n_days + 1)
        in_force = dict(zip(CONTROL_NAMES, map(float, run.controls[6]), strict=True))
        rack.append(ReactorNow(beliefs.belief(6), 6, in_force, reactor_id=f"R{k + 1:02d}"))

    settings = ROLLOUT_SETTINGS._replace(n_restarts=2, n_raw_samples=32)
    policy = BEDPolicy(model, SPACE, n_paths=n_paths, settings=settings)
    decisions = policy.decide_rack(rack, seed=1, say=print)
    for decision in decisions:
        show(decision)
    if folder is not None:
        draw(decisions, folder / "decisions.png")

    print("\nwith temperature and stirring held by the operator:")
    first = rack[0]
    held = {name: first.u_now[name] for name in ("temperature", "agitation")}
    (again,) = policy.decide_rack(
        [ReactorNow(first.c_current, 6, first.u_now, fixed=held, reactor_id="R01")], seed=1
    )
    show(again)

    print("\nafter the bleed was limited to 0.2 vvd in mid-run:")
    bounds = dict(SPACE.control_bounds)
    bounds["bleed_rate"] = bounds["bleed_rate"].replace(hi=0.2)
    (less,) = policy.with_space(SPACE.replace(control_bounds=bounds)).decide_rack([first], seed=1)
    show(less)
    return [*decisions, again, less]


if __name__ == "__main__":
    main(folder=Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/example03"))
