"""Which mechanism, where nobody names one: the best of a plain one, none, and that of CHO cells."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from perfusio_jax._core import ConfigError
from perfusio_jax.gp import FitReport
from perfusio_jax.hybrid.fit import fit_hybrid
from perfusio_jax.hybrid.model import HybridStateSpaceModel
from perfusio_jax.hybrid.settings import HybridConfig
from perfusio_jax.hybrid.verdict import Verdict, judge_fit
from perfusio_jax.mechanistic.cho_cells import cho_cells
from perfusio_jax.process import Process
from perfusio_jax.states import Trajectory

PLAIN = ("monod", "none")
"""Mechanisms that are tried of any culture where none is named."""
NAMED = (*PLAIN, "cho")
"""Mechanisms that have a name."""

NO_PLAIN = "mechanism: none, since no biomass is named, or nothing that it takes up."
"""Why there is no choice to make."""


def candidates(process: Process) -> tuple[str, ...]:
    """Mechanisms that are tried where none is named.

    The laws of CHO cells are among them where the process has counted cells and glucose under the
    names of a CHO culture; what it does not measure of them stays latent.

    Args:
        process: The culture.
    """
    try:
        parts = dict(cho_cells(process).names)
    except ConfigError:  # no such cells, or a unit that is none of theirs: monod fits any
        return PLAIN
    return NAMED if "glc" in parts else PLAIN


class Fitted(NamedTuple):
    """A model, how it was found, and what it is fit for."""

    model: HybridStateSpaceModel
    report: FitReport
    verdict: Verdict | None
    name: str
    """Its mechanism."""


def fitted_best(
    runs: Sequence[Trajectory],
    process: Process | None,
    *,
    seed: int,
    mechanism: Any = None,
    say: Callable[[str], None] | None = None,
    config: HybridConfig | None = None,
) -> tuple[Fitted, list[str]]:
    """A model of a campaign; without a mechanism named, the best of those that suit its process.

    Args:
        runs: Runs with every set-point.
        process: The culture; None for CHO perfusion.
        seed: Random seed.
        mechanism: `monod`, `none`, `cho`, or a `Mechanism` of one's own.
        say: Called with what is being done.
        config: Settings of the fits.

    Returns:
        The model, and sentences about the choice.

    Raises:
        ConfigError: If a mechanism is named for CHO perfusion.
    """
    refuse_mechanism(process, mechanism)
    if process is None or mechanism is not None:
        return _fit(runs, process, seed, mechanism, config), []
    found = []
    for name in candidates(process):
        if say is not None:
            say(f"fitting, mechanism: {name}")
        made = _fit(runs, process, seed, name, config)
        if name == "none" or has_mechanism(made.model):
            found.append(made)
    if len(found) == 1:
        return found[0], [NO_PLAIN]
    scores = {f.name: verdict_score(f.verdict) for f in found}
    name, told = best_of(scores)
    return next(f for f in found if f.name == name), [
        f"mechanism: {name}. Error one sampling interval ahead, over that if nothing changed, "
        f"each run by the process without it: {told}."
    ]


def refuse_mechanism(process: Process | None, mechanism: Any) -> None:
    """Refuse a mechanism beside that of CHO perfusion.

    Args:
        process: The culture; None for CHO perfusion.
        mechanism: A name of `NAMED`, a `Mechanism`, or None if nobody named one.

    Raises:
        ConfigError: If one is named and no culture is described.
    """
    if process is None and mechanism is not None:
        raise ConfigError(
            f"--mechanism {mechanism_name(mechanism)} was given, and CHO perfusion has one of its "
            "own; --process table reads the culture off the table instead."
        )


def mechanism_name(mechanism: Any) -> str:
    """What people call a mechanism.

    Args:
        mechanism: A name, which stays as it is, or a `Mechanism`, which is called by its class.
    """
    return mechanism if isinstance(mechanism, str) else type(mechanism).__name__


def has_mechanism(model: HybridStateSpaceModel) -> bool:
    """Whether anything is known of the rates of a described culture.

    Args:
        model: A fitted model; False if the balances alone are its mechanism. One of CHO
            perfusion always has rates.
    """
    return model.mech_model.kinetics is not None


def best_of(scores: Mapping[str, float]) -> tuple[str, str]:
    """The mechanism with the smallest score, and all of them in words.

    Args:
        scores: By mechanism, as `verdict_score` gives them.
    """
    names = list(scores)
    best = names[int(np.argmin([scores[name] for name in names]))]
    each = [f"{scores[name]:.2f} with {name}" for name in names]
    return best, " and ".join([", ".join(each[:-1]), each[-1]] if each[1:] else each)


def verdict_score(verdict: Verdict | None) -> float:
    """Geometric mean of the errors over those if nothing changed; infinite without any.

    Args:
        verdict: What the fit was judged to be; None for a model without a process.

    Returns:
        Above zero, the smaller the better; one is as good as saying that nothing changes [-].
        Species that could not be judged, or whose error is zero, are left out.
    """
    if verdict is None:
        return float("inf")
    ratio = np.asarray(verdict.error) / np.asarray(verdict.nothing_changes)
    ratio = ratio[np.isfinite(ratio) & (ratio > 0.0)]
    return float(np.exp(np.mean(np.log(ratio)))) if ratio.size else float("inf")


def _fit(
    runs: Sequence[Trajectory],
    process: Process | None,
    seed: int,
    mechanism: Any,
    config: HybridConfig | None,
) -> Fitted:
    model, report = fit_hybrid(
        list(runs),
        key=jax.random.key(seed),
        config=config,
        process=process,
        mech_model=mechanism,
    )
    return Fitted(model, report, judge_fit(model, list(runs)), mechanism_name(mechanism))
