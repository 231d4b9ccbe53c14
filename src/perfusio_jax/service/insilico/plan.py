"""What an in-silico campaign is made of, as a file says it, and its division into parts."""

import hashlib
import re
from typing import Annotated, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from pydantic import Field, field_validator, model_validator
from scipy.stats import qmc

from perfusio_jax._core import ConfigError
from perfusio_jax._core.configmodel import ConfigModel
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.mechanistic import CHOKinetics
from perfusio_jax.process import CHO_PERFUSION
from perfusio_jax.simulator import VIRTUAL_CLONES, sample_clones, virtual_kinetics

_FAMILY = re.compile(r"family:(?P<n>\d+)")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_MOST_RUNS = 10**8

CONTROLS = tuple(control.name for control in CHO_PERFUSION.controls)
"""Set-points of a run, in the order of its arrays."""
_DEFAULTS = {control.name: control.default for control in CHO_PERFUSION.controls}


class PolicyPlan(ConfigModel):
    """How set-points are moved while a run goes on."""

    name: str
    """What it is called in the results."""
    kind: str = "fixed"
    """`fixed`, `bleed` (proportional control of the cell volume), or `module:function` of yours."""
    target: Annotated[float, Field(gt=0.0)] = 12.0
    """Of `bleed`: VCV at which the bleed begins to rise [%]."""
    gain: Annotated[float, Field(gt=0.0)] = 0.05
    """Of `bleed`: how steeply [vvd per %]."""

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in ("fixed", "bleed") and not _FUNCTION.fullmatch(kind):
            raise ValueError(f"kind {kind!r} is unknown; fixed, bleed or module:function.")
        return kind


class CampaignPlan(ConfigModel):
    """An in-silico campaign: every clone with every design, policy and seed."""

    clones: list[str] = Field(default=["CloneX"], min_length=1)
    """`CloneX`, `CloneY`, or `family:20` for twenty drawn around them."""
    recipes: list[dict[str, float]] | None = None
    """Designs by name of control; what is not named stands at its default."""
    n_designs: Annotated[int, Field(ge=1)] = 16
    """Without recipes: points that fill the design space."""
    policies: list[PolicyPlan] = Field(default=[PolicyPlan(name="fixed")], min_length=1)
    """How runs are driven."""
    n_seeds: Annotated[int, Field(ge=1)] = 1
    """Repeats, with other assay noise and inocula."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of clones, designs, inocula and noise."""
    days: Annotated[int, Field(ge=1, le=365)] = 14
    """Length of a run [d]; sampled, and moved, daily."""
    inoculum_cv: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """How much inocula vary [-]."""
    part: Annotated[int, Field(ge=1, le=65536)] = 256
    """Runs that are computed at once, and kept as one file."""
    mode: Literal["cho_perfusion"] = "cho_perfusion"
    """The plant."""

    @model_validator(mode="after")
    def _whole(self) -> "CampaignPlan":
        for clone in self.clones:
            family = _FAMILY.fullmatch(clone)
            if clone not in VIRTUAL_CLONES and not (family and int(family["n"])):
                raise ValueError(
                    f"clone {clone!r} is unknown; {', '.join(VIRTUAL_CLONES)} or family:20."
                )
        for recipe in self.recipes or ():
            wrong = [name for name in recipe if name not in CONTROLS]
            if wrong:
                raise ValueError(
                    f"{', '.join(wrong)} is no control{did_you_mean(wrong, CONTROLS)}; there "
                    f"are {', '.join(CONTROLS)}."
                )
        names = [policy.name for policy in self.policies]
        if len(set(names)) < len(names):
            raise ValueError(f"policies {names}; each needs a name of its own.")
        if self.recipes is not None and not self.recipes:
            raise ValueError("recipes is empty; name one, or leave it out for a space-filling set.")
        if self.n_runs > _MOST_RUNS:
            raise ValueError(f"{self.n_runs} runs; at most {_MOST_RUNS} are possible.")
        return self

    @property
    def clone_names(self) -> list[str]:
        """Every clone, those of a family by number."""
        found = []
        for clone in self.clones:
            family = _FAMILY.fullmatch(clone)
            found += [f"F{k + 1:04d}" for k in range(int(family["n"]))] if family else [clone]
        return found

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Policies, clones, designs, seeds."""
        n_designs = self.n_designs if self.recipes is None else len(self.recipes)
        return len(self.policies), len(self.clone_names), n_designs, self.n_seeds

    @property
    def n_runs(self) -> int:
        """Runs in all."""
        return int(np.prod(self.shape, dtype=object))

    @property
    def runs_per_policy(self) -> int:
        """Runs of one policy; parts hold one policy each."""
        return self.n_runs // len(self.policies)

    @property
    def n_parts(self) -> int:
        """Files in all."""
        return len(self.policies) * -(-self.runs_per_policy // self.part)

    @property
    def digest(self) -> str:
        """What identifies the plan: parts of two plans are not put together."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class Cells(NamedTuple):
    """Runs of a part."""

    policy: PolicyPlan
    run: np.ndarray
    """Number of each in the campaign."""
    clone: np.ndarray
    design: np.ndarray
    seed: np.ndarray
    """Which of each it is, from 0."""


def cells_of(plan: CampaignPlan, part: int) -> Cells:
    """Runs of a part.

    Raises:
        ConfigError: If there is no such part.
    """
    if not 0 <= part < plan.n_parts:
        raise ConfigError(f"part {part} of {plan.n_parts}; they are numbered from 0.")
    per_policy = plan.n_parts // len(plan.policies)
    policy, piece = divmod(part, per_policy)
    within = np.arange(piece * plan.part, min((piece + 1) * plan.part, plan.runs_per_policy))
    clone, design, seed = np.unravel_index(within, plan.shape[1:])
    run = policy * plan.runs_per_policy + within
    return Cells(plan.policies[policy], run, clone, design, seed)


def designs_of(plan: CampaignPlan) -> Float[np.ndarray, "D 6"]:
    """Set-points of every design; bleed never above perfusion."""
    if plan.recipes is not None:
        rows = [{**_DEFAULTS, **recipe} for recipe in plan.recipes]
        return np.array([[row[name] for name in CONTROLS] for row in rows], float)
    lo, hi = (np.asarray(b) for b in DEFAULT_AMBR250_DESIGN_SPACE.bounds_array)
    size = int(np.ceil(np.log2(plan.n_designs)))
    unit = qmc.Sobol(len(lo), rng=plan.seed).random_base2(size)[: plan.n_designs]
    designs = lo + (hi - lo) * unit
    bleed, perfusion = (CONTROLS.index(n) for n in ("bleed_rate", "perfusion_rate"))
    designs[:, bleed] = np.minimum(designs[:, bleed], designs[:, perfusion])
    return designs


def kinetics_of(plan: CampaignPlan) -> CHOKinetics:
    """True constants of every clone, a leading axis of clones in every field."""
    parts = []
    for k, clone in enumerate(plan.clones):
        family = _FAMILY.fullmatch(clone)
        if family:
            key = jax.random.fold_in(jax.random.key(plan.seed), k)
            parts.append(sample_clones(key, int(family["n"])))
        else:
            parts.append(virtual_kinetics(clone))
    return jax.tree.map(lambda *v: np.concatenate([np.atleast_1d(x) for x in v]), *parts)
