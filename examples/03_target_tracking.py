"""Daily decisions by experimental design: one reactor, then a rack, on the hybrid model itself.

Simulates a small campaign, fits the hybrid model, estimates the state of three running
reactors and recommends set-points that bring the cell volume to its target with the viability
kept. Each recommendation comes with its reasons; one is asked for again with two set-points
held by the operator, and once more after the design space has changed.
"""

import perfusio_jax

perfusio_jax.enable_x64()

import jax
import jax.numpy as jnp

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

SPACE = DEFAULT_AMBR250_DESIGN_SPACE.replace(vcv_target=12.0, viability_min=90.0)


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


def main(
    n_runs: int = 9,
    n_days: int = 10,
    n_paths: int = 32,
    config: HybridConfig | None = None,
) -> list[BEDDecision]:
    """Fit, estimate, decide.

    Args:
        n_runs: Runs of the campaign.
        n_days: Their length [d].
        n_paths: Roll-out paths of a decision.
        config: Settings of the fit.

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
    decisions = policy.decide_rack(rack, seed=1)
    for decision in decisions:
        show(decision)

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
    main()
