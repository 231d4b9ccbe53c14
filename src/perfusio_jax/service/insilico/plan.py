"""What an in-silico campaign is made of, as a file says it, and its division into parts."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

import jax
import numpy as np
from jaxtyping import Float
from pydantic import Field, field_validator, model_validator
from scipy.stats import qmc

from perfusio_jax._core import HOURS_PER_DAY, ConfigError
from perfusio_jax._core.configmodel import ConfigModel
from perfusio_jax._core.hints import did_you_mean
from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE
from perfusio_jax.mechanistic import CHOKinetics
from perfusio_jax.process import CHO_PERFUSION, Control, Process, read_process
from perfusio_jax.service.asked_run import is_cho
from perfusio_jax.simulator import (
    VIRTUAL_CLONES,
    controls_at,
    sample_clones,
    virtual_kinetics,
    whole_intervals,
)

_FAMILY = re.compile(r"family:(?P<n>\d+)")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_MOST_RUNS = 10**8

CONTROLS: Final = CHO_PERFUSION.control_names
"""Set-points of a run of CHO perfusion, in the order of its arrays."""
NOMINAL: Final = "nominal"
"""Clone of a described culture: its mechanism with the constants that it says."""
_LATER: Final = ("process", "mechanism", "design", "sampling_interval_hours", "clone_spread")
"""Fields that came later: a plan without them is identified as it was before."""


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
    """`CloneX`, `CloneY`, or `family:20` for twenty drawn around them. Of a described culture:
    `nominal`, which is its default, or `family:20` for twenty drawn from the mechanism's priors."""
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
    """Length of a run [d]."""
    inoculum_cv: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """How much inocula vary [-]; of a described culture its biomass."""
    part: Annotated[int, Field(ge=1, le=65536)] = 256
    """Runs that are computed at once, and kept as one file."""
    mode: Literal["cho_perfusion"] | None = "cho_perfusion"
    """The plant; None of a described culture, whose plant follows from `process`."""
    process: Process | None = None
    """The culture: a built-in name, a file beside the plan that ends in .toml, or a table; the
    CHO plant if None. It is kept with the campaign, as it was."""
    mechanism: str | None = None
    """What moves it: `monod`, `cho` or `module:Class`; the culture's own, or `monod`, if None."""
    design: dict[str, tuple[float, float]] | None = None
    """Ranges that designs fill, by name of control [its unit]; what is not named fills the whole
    range it has."""
    sampling_interval_hours: Annotated[float, Field(ge=1.0, le=168.0)] = HOURS_PER_DAY
    """Hours between samples, at which policies act [h]; of CHO perfusion a day."""
    clone_spread: Annotated[float, Field(ge=0.0, le=3.0)] = 1.0
    """How far clones of a family differ, in parts of what the priors say [-]."""

    @classmethod
    def _from_mapping(cls, data: Any, where: str) -> Self:
        """A file that is named lies beside the plan."""
        named = data.get("process") if isinstance(data, Mapping) else None
        if isinstance(named, str) and named.endswith(".toml"):
            data = {**data, "process": str(Path(where).parent / named)}
        return super()._from_mapping(data, where)

    @model_validator(mode="before")
    @classmethod
    def _of_its_culture(cls, data: Any) -> Any:
        """What stands where nothing is given is the culture's own."""
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        named = data.get("process")
        if isinstance(named, str):
            data["process"] = read_process(named)
        elif isinstance(named, Mapping):
            data["process"] = Process(**named)
        process = data.get("process")
        if process is None or is_cho(process, data.get("mechanism")):
            data["mode"] = data.get("mode") or "cho_perfusion"
        else:
            data.setdefault("mode", None)
            data.setdefault("clones", [NOMINAL])
        return data

    @model_validator(mode="after")
    def _whole(self) -> "CampaignPlan":
        self._check_culture()
        known = (NOMINAL,) if self.is_described else VIRTUAL_CLONES
        for clone in self.clones:
            family = _FAMILY.fullmatch(clone)
            if clone not in known and not (family and int(family["n"])):
                raise ValueError(f"clone {clone!r} is unknown; {', '.join(known)} or family:20.")
        twice = [name for name, n in Counter(self.clone_names).items() if n > 1]
        if twice:
            raise ValueError(
                f"clones {list(self.clones)} give {twice[0]} twice; name a clone once, and one "
                "family."
            )
        names = self.culture.control_names
        for recipe in self.recipes or ():
            self._check_names(recipe, names)
        self._check_design()
        taken = [policy.name for policy in self.policies]
        if len(set(taken)) < len(taken):
            raise ValueError(f"policies {taken}; each needs a name of its own.")
        if self.recipes is not None and not self.recipes:
            raise ValueError("recipes is empty; name one, or leave it out for a space-filling set.")
        if self.n_runs > _MOST_RUNS:
            raise ValueError(f"{self.n_runs} runs; at most {_MOST_RUNS} are possible.")
        return self

    def _check_names(self, given: Mapping[str, Any], names: tuple[str, ...]) -> None:
        wrong = [name for name in given if name not in names]
        if wrong:
            raise ValueError(
                f"{', '.join(wrong)} is no control{did_you_mean(wrong, names)}; there "
                f"are {', '.join(names) or 'none'}."
            )

    def _check_culture(self) -> None:
        """What is of CHO perfusion alone, and what of a culture that is described."""
        if not self.is_described:
            if self.mechanism is not None:
                raise ValueError(
                    f"mechanism {self.mechanism!r} is of a culture that process names; add process."
                )
            if self.sampling_interval_hours != HOURS_PER_DAY:
                raise ValueError(
                    f"sampling_interval_hours {self.sampling_interval_hours:g}: the CHO plant is "
                    "sampled daily. With process = 'cho_perfusion' and mechanism = 'cho' it is a "
                    "described culture, and sampled as you like."
                )
            return
        culture = self.culture
        if self.mode is not None:
            raise ValueError(
                f"mode {self.mode!r} is a plant of its own, and process names {culture.name}; "
                "leave one of them out."
            )
        for policy in self.policies:
            if policy.kind == "bleed":
                raise ValueError(
                    f"policy {policy.name!r}: bleed steers the cell volume of CHO perfusion by "
                    f"its bleed; of {culture.name} there are fixed and module:function of yours."
                )
        if culture.biomass is None and self.inoculum_cv > 0.0:
            raise ValueError(
                f"inoculum_cv {self.inoculum_cv:g} scatters the biomass, and {culture.name} names "
                "none. Name it there (biomass = ...), or give inoculum_cv = 0."
            )
        whole_intervals(self.days, self.sampling_interval_hours)

    def _check_design(self) -> None:
        """Ranges and recipes lie in what the culture allows, and leave something to differ in."""
        culture = self.culture
        if self.design is not None:
            if self.recipes is not None:
                raise ValueError(
                    "design holds ranges to fill and recipes the points themselves; give one."
                )
            self._check_names(self.design, culture.control_names)
            for name, (low, high) in self.design.items():
                control = culture.control(name)
                if not control.lo <= low <= high <= control.hi:
                    raise ValueError(
                        f"design: {name} from {low:g} to {high:g}; a range within "
                        f"{_range(control)} is needed, the lower end first."
                    )
        if not self.is_described:
            return
        for recipe in self.recipes or ():
            for name, value in recipe.items():
                control = culture.control(name)
                if not control.lo <= value <= control.hi:
                    raise ValueError(f"recipes: {name} is {value:g}; {_range(control)} is allowed.")
        spans = [c for c in self.spanned if c.lo < c.hi]
        if self.recipes is None and self.n_designs > 1 and not spans:
            raise ValueError(
                f"{self.n_designs} designs, and {culture.name} has no control with a range that "
                "they could differ in; give n_designs = 1."
            )

    @property
    def culture(self) -> Process:
        """The culture."""
        return CHO_PERFUSION if self.process is None else self.process

    @property
    def is_described(self) -> bool:
        """Whether the plant follows from the process, and is not the CHO plant."""
        return not is_cho(self.culture, None if self.process is None else self.mechanism)

    @property
    def spanned(self) -> tuple[Control, ...]:
        """Controls with the ranges that designs fill."""
        spans = self.design or {}
        found = []
        for control in self.culture.controls:
            low, high = spans.get(control.name, (control.lo, control.hi))
            middle = min(max(control.default, low), high)
            found.append(control.replace(lo=low, hi=high, default=middle))
        return tuple(found)

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
        fields = type(self).model_fields
        left = {name for name in _LATER if getattr(self, name) == fields[name].default}
        if not self.is_described:
            left |= {"process"}  # named or not, it is the CHO plant
        return hashlib.sha256(self.model_dump_json(exclude=left).encode()).hexdigest()


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


def designs_of(plan: CampaignPlan) -> Float[np.ndarray, "D M"]:
    """Set-points of every design, of a bolus what is given over the whole run.

    What leaves beside a stream that keeps the volume is lowered to what comes in.
    """
    culture = plan.culture
    if plan.recipes is not None:
        defaults = {control.name: control.default for control in culture.controls}
        rows = [{**defaults, **recipe} for recipe in plan.recipes]
        return np.array([list(row.values()) for row in rows], float)
    n_controls = len(culture.controls)
    if n_controls == 0:
        return np.zeros((plan.n_designs, 0))
    size = int(np.ceil(np.log2(plan.n_designs)))
    unit = qmc.Sobol(n_controls, rng=plan.seed).random_base2(size)[: plan.n_designs]
    if plan.is_described:
        return controls_at(culture.replace(controls=plan.spanned), unit)
    lo, hi = (np.array(b) for b in DEFAULT_AMBR250_DESIGN_SPACE.bounds_array)
    for name, (low, high) in (plan.design or {}).items():
        lo[CONTROLS.index(name)], hi[CONTROLS.index(name)] = low, high
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
            parts.append(sample_clones(key, int(family["n"]), spread=plan.clone_spread))
        else:
            parts.append(virtual_kinetics(clone))
    return jax.tree.map(lambda *v: np.concatenate([np.atleast_1d(x) for x in v]), *parts)


def _range(control: Control) -> str:
    return f"{control.lo:g} to {control.hi:g} {control.unit}"
