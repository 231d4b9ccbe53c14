"""The constants of a mechanism as recorded runs leave them."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from perfusio_jax._core import ConfigError
from perfusio_jax._core.progress import tell
from perfusio_jax.study.calibration.chains import Agreement, agreement, energy_shares
from perfusio_jax.study.calibration.checks import Check, predictive_check
from perfusio_jax.study.calibration.likelihood import way_of
from perfusio_jax.study.calibration.problem import Problem
from perfusio_jax.study.calibration.sampling import Chains, Plan, sample
from perfusio_jax.study.calibration.start import Start, begin
from perfusio_jax.study.calibration.variational import NormalLaw, at_the_top, fitted_law
from perfusio_jax.study.identifiability.fitting import START_WIDTH

Method = Literal["nuts", "svi", "map"]
METHODS: tuple[Method, ...] = ("nuts", "svi", "map")

R_HAT = 1.01
"""Disagreement of chains on a constant above which they are not believed [-]."""
R_HAT_BESIDE = 1.05
"""The same of everything that is unknown beside the constants: starts, spreads, noise."""
ESS_PER_CHAIN = 100.0
"""Effective draws of a constant that each chain is to bring."""
_DEEP = 0.01
"""Share of paths that may end at the longest allowed [-]."""
_SLUGGISH = 0.3
"""E-BFMI below which a chain does not reach the tails [-]."""
_HEAVY = 0.7
"""Tail shape of importance weights above which a normal law does not fit [-]."""
_REPLICATED = 200
"""Draws that are replicated in a check."""


class Diagnostics(NamedTuple):
    """What the sampler says of itself."""

    constants: Agreement
    """Of the common constants."""
    beside: Agreement
    """Of everything else that is unknown."""
    n_divergent: int
    """Paths that left for where their steps were too long, or nothing runs."""
    n_deep: int
    """Paths that ended at the longest allowed."""
    e_bfmi: Float[np.ndarray, " C"]
    """Energy's moves over its spread, by chain [-]."""
    depth: float
    """Mean depth of the trees [-]."""
    accepted: float
    """Mean share of points that would be taken [-]."""
    step_size: Float[np.ndarray, " C"]
    """Step size by chain [-]."""
    n_gradients: int
    """Derivatives in all."""


class Posterior(NamedTuple):
    """Constants as draws, and how far they can be believed."""

    names: tuple[str, ...]
    """Constants."""
    units: tuple[str, ...]
    """Their units."""
    prior: Float[np.ndarray, "3 P"]
    """Whether on the logarithm, middle, and standard deviation of each prior (of the logarithm
    where it is on that)."""
    draws: Float[np.ndarray, "C S P"]
    """Common constants by chain [their units]."""
    by_clone: Float[np.ndarray, "C S K P"]
    """Constants of each clone [their units]; those in common where there is one."""
    clones: tuple[str, ...]
    """Names of the clones."""
    noise: Float[np.ndarray, "C S A"]
    """Factor on the deviation of each assay [-]; 1 where it was not learned."""
    columns: tuple[str, ...]
    """Names of the assays."""
    column_units: tuple[str, ...]
    """Their units."""
    starts: Float[np.ndarray, "C S R n"]
    """What each run starts with, over its first sample [-]."""
    run_ids: tuple[str, ...]
    """Names of the runs."""
    method: Method
    """How the draws were made."""
    diagnostics: Diagnostics | None
    """Of the sampler; None of a normal law."""
    check: Check
    """What the posterior would read."""
    before: Check
    """What the prior would read."""
    problems: tuple[str, ...]
    """Why the draws are not to be believed, in words; empty where nothing speaks against them."""
    notes: tuple[str, ...]
    """What was assumed and what is left open, in words."""

    @property
    def pooled(self) -> Float[np.ndarray, "N P"]:
        """Common constants of all chains."""
        return self.draws.reshape(-1, len(self.names))

    def of_clone(self, name: str | None = None) -> Float[np.ndarray, "N P"]:
        """Constants of one clone, all chains.

        Args:
            name: The clone; the common constants if None or if clones do not differ.

        Raises:
            ConfigError: If no clone has that name.
        """
        if name is None or len(self.clones) == 1:
            return self.pooled
        if name not in self.clones:
            raise ConfigError(
                f"the posterior knows the clones {', '.join(self.clones)}, and no {name!r}."
            )
        own = self.by_clone[:, :, self.clones.index(name)]
        return own.reshape(-1, len(self.names))


def calibrate(
    problem: Problem,
    *,
    method: Method = "nuts",
    plan: Plan | None = None,
    seed: int = 0,
    on_part: Callable[[int, int], None] | None = None,
) -> Posterior:
    """The posterior of a mechanism's constants.

    Args:
        problem: What is asked, from `calibration_problem`.
        method: `nuts` samples; `svi` fits a normal law to the whole posterior; `map` takes the
            normal law with the curvature of its most probable point.
        plan: How it is sampled.
        seed: Random seed.
        on_part: Told the draws or steps done and those to come.

    Raises:
        ConfigError: If the method is unknown, or the plan makes no sense.
        DataError: If the runs cannot be used.
        SimulationError: If they cannot be simulated.
    """
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is unknown; choose nuts, svi or map.")
    plan = (Plan() if plan is None else plan).checked()
    for_draws, for_check, for_prior, for_noise = jax.random.split(jax.random.key(seed), 4)
    way, costs = way_of(problem)
    others = ", ".join(f"{w} {costs[w]:.0f}" for w in costs)
    tell(f"{problem.n_unknown} unknown; {way} derivatives (cost in runs: {others})")
    start = begin(problem, plan.n_chains)
    chains: Chains | None = None
    law: NormalLaw | None = None
    if method == "nuts":
        chains = sample(problem, start.white, plan, key=for_draws, on_part=on_part)
        u = chains.u
    else:
        law = (
            at_the_top(problem, start.white, plan.n_chains, key=for_draws)
            if method == "map"
            else fitted_law(problem, start.white, plan.n_chains, key=for_draws, on_part=on_part)
        )
        u = law.u
    tell("checking what it would read")
    flat = u.reshape(-1, u.shape[-1])
    rows = np.linspace(0, len(flat) - 1, min(_REPLICATED, len(flat))).astype(int)
    check = predictive_check(problem, flat[rows], key=for_check)
    wide = np.asarray(jax.random.normal(for_prior, (_REPLICATED, u.shape[-1])))
    before = predictive_check(problem, wide, key=for_noise)
    said = None if chains is None else diagnosed(problem, chains, plan)
    problems = [
        *_of_start(start, method),
        *([] if said is None or chains is None else against_chains(problem, said, chains, plan)),
        *_of_law(law),
        *_of_check(check, problem),
    ]
    notes = [*problem.lines(), *(f"{d.words}." for d in start.first.open)]
    if before.n_lost:
        notes.append(
            f"{before.n_lost} of {before.n_draws} draws of the prior could not be simulated"
        )
    return _gathered(problem, u, method, said, check, before, problems, notes)


def _gathered(
    problem: Problem,
    u: np.ndarray,
    method: Method,
    said: Diagnostics | None,
    check: Check,
    before: Check,
    problems: list[str],
    notes: list[str],
) -> Posterior:
    many = jax.vmap(jax.vmap(problem.unflat))(jnp.asarray(u))
    shape = u.shape[:2]
    assays = problem.experiment.assays
    centre = np.asarray(many["constants"])
    own = np.asarray(jax.vmap(jax.vmap(problem.by_clone))(many))
    noise = np.asarray(jax.vmap(jax.vmap(problem.log_factors))(many))
    starts = (
        np.ones((*shape, *problem.records.start.shape))
        if problem.starts_known
        else np.exp(START_WIDTH * np.asarray(many["starts"]))
    )
    laws = problem.laws
    is_normal, a, b = (np.asarray(v) for v in (laws.is_normal, laws.a, laws.b))
    middle, width = np.where(is_normal, a, a + 0.5 * b), np.where(is_normal, b, b / np.sqrt(12.0))
    return Posterior(
        names=tuple(lever.name for lever in problem.levers),
        units=tuple(lever.unit for lever in problem.levers),
        prior=np.stack([np.asarray(laws.is_log, float), middle, width]),
        draws=problem.values(centre),
        by_clone=problem.values(own),
        clones=problem.clones,
        noise=np.exp(noise),
        columns=tuple(a.column for a in assays),
        column_units=tuple(problem.experiment.unit(a.column) for a in assays),
        starts=starts,
        run_ids=problem.run_ids,
        method=method,
        diagnostics=said,
        check=check,
        before=before,
        problems=tuple(problems),
        notes=tuple(notes),
    )


def diagnosed(problem: Problem, chains: Chains, plan: Plan) -> Diagnostics:
    """What the sampler says of itself.

    Args:
        problem: What was asked.
        chains: The draws.
        plan: How they were made.
    """
    p = len(problem.levers)
    deepest = 2**plan.max_depth - 1
    return Diagnostics(
        constants=agreement(chains.u[..., :p]),
        beside=agreement(chains.u[..., p:]),
        n_divergent=int(chains.is_divergent.sum()),
        n_deep=int((chains.n_steps >= deepest).sum()),
        e_bfmi=energy_shares(chains.energy),
        depth=float(np.mean(np.floor(np.log2(np.maximum(chains.n_steps, 1))) + 1.0)),
        accepted=float(np.mean(chains.accepted)),
        step_size=chains.step_size,
        n_gradients=chains.n_gradients,
    )


def _of_start(start: Start, method: Method) -> list[str]:
    if start.is_converged or method == "nuts":  # chains that find it all the same say so
        return []
    return ["the search for the most probable constants did not come to its end"]


def against_chains(problem: Problem, said: Diagnostics, chains: Chains, plan: Plan) -> list[str]:
    """What speaks against draws, in words.

    Args:
        problem: What was asked.
        said: What the sampler says of itself.
        chains: The draws.
        plan: How they were made.
    """
    found = []
    n = plan.n_chains * plan.n_draws
    r_hat = said.constants.r_hat
    wrong = [k for k in np.argsort(-np.nan_to_num(r_hat, nan=np.inf)) if not r_hat[k] <= R_HAT]
    if wrong:
        told = ", ".join(f"{problem.levers[k].name} {r_hat[k]:.3f}" for k in wrong[:4])
        found.append(
            f"the chains disagree (R-hat above {R_HAT:g}): {told}"
            f"{f' and {len(wrong) - 4} more' if len(wrong) > 4 else ''}. {_apart(problem, chains)}"
            "More draws help where they only drift"
        )
    worst = np.nanmax(said.beside.r_hat) if said.beside.r_hat.size else 1.0
    if not worst <= R_HAT_BESIDE:
        found.append(
            f"the chains disagree on starts, spreads or noise (R-hat {worst:.3f}, above "
            f"{R_HAT_BESIDE:g})"
        )
    least = ESS_PER_CHAIN * plan.n_chains
    for what, ess in (("middle", said.constants.ess_bulk), ("tails", said.constants.ess_tail)):
        k = int(np.nanargmin(ess)) if np.isfinite(ess).any() else -1
        if k >= 0 and ess[k] < least:
            found.append(
                f"too few draws of the {what}: {problem.levers[k].name} has {ess[k]:.0f} effective "
                f"ones, {least:.0f} are needed"
            )
    if said.n_divergent:
        found.append(
            f"{said.n_divergent} of {n} paths diverged: the posterior has a corner, or a place "
            "where nothing can be simulated, that the sampler does not enter. A higher --target "
            "takes shorter steps; a tighter prior or fewer constants remove the corner"
        )
    if said.n_deep > _DEEP * n:
        found.append(
            f"{said.n_deep} of {n} paths ended at the longest allowed ({2**plan.max_depth - 1} "
            "steps): constants go together more than the sampler knows. --max-depth lets them go on"
        )
    if np.any(said.e_bfmi < _SLUGGISH):
        found.append(
            f"E-BFMI is {np.min(said.e_bfmi):.2f}, below {_SLUGGISH:g}: the chains do not reach "
            "the tails"
        )
    return found


def _apart(problem: Problem, chains: Chains) -> str:
    """Which chain lies elsewhere, if one does."""
    energy = chains.potential.mean(axis=1)
    scatter = np.sqrt(chains.u.shape[-1] / 2.0)
    k = int(np.argmax(np.abs(energy - np.median(energy))))
    if abs(energy[k] - np.median(energy)) < 3.0 * scatter:
        return ""
    return f"Chain {k + 1} lies where the density is another: there is more than one place. "


def _of_law(law: NormalLaw | None) -> list[str]:
    if law is None:
        return []
    found = []
    if not law.is_converged:
        found.append("the variational fit was still gaining when it ended")
    if law.tail > _HEAVY:
        told = "none of them can be weighed" if not np.isfinite(law.tail) else f"k {law.tail:.2f}"
        found.append(
            f"the posterior is no normal law ({told}, above {_HEAVY:g}): its intervals are not "
            "those of the posterior. Sample it (nuts)"
        )
    return found


def _of_check(check: Check, problem: Problem) -> list[str]:
    missed = check.lines()
    if not missed:
        return []
    way = "" if problem.learns_noise else " --learn-noise widens the assays by what is missed"
    return [
        "the mechanism does not meet the readings: "
        + "; ".join(missed)
        + f". What is said of constants is said of a mechanism that does not fit.{way}"
    ]
