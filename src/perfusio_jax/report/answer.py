"""The end of a proposal, whatever the culture: refused, or written to a table and told."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perfusio_jax._core import ConfigError
from perfusio_jax._core.text import shown_units
from perfusio_jax._core.units import canonical_unit
from perfusio_jax.bed.goal.criteria import ProcessOFV
from perfusio_jax.report.costing import costs_in_words
from perfusio_jax.report.proposal_words import best_measured, in_words
from perfusio_jax.report.recipes import new_ids, write_recipes
from perfusio_jax.report.setpoints import moved_unseen, never_varied, repeated
from perfusio_jax.states import Trajectory
from perfusio_jax.viz import Card, show_card


def refuse_infeasible(found: dict[str, Any], probability: float, remedy: str) -> None:
    """Refuse to propose what keeps no limit.

    Args:
        found: From `explain_campaign`.
        probability: With which limits were to be kept [-].
        remedy: What helps, a sentence.

    Raises:
        ConfigError: If no recipe keeps them.
    """
    if found["is_feasible"]:
        return
    is_daily = all(c["is_daily"] for c in found["constraints"])
    wanted = " and ".join(c["limit"] for c in found["constraints"])
    when = " on every day" if is_daily else ""
    raise ConfigError(
        f"no recipe was found that keeps {wanted}{when} with probability {probability:g}; "
        f"the best of {found['n_rollouts']} keeps it with probability "
        f"{found['best_probability']:.2f}. {remedy}"
    )


def answer(
    found: dict[str, Any],
    U: np.ndarray,
    runs: list[Trajectory],
    recipes: np.ndarray,
    *,
    ofv: ProcessOFV,
    span: np.ndarray,
    names: list[str],
    held: Sequence[str],
    taken: Iterable[str],
    clone: str,
    out: Path,
    console: Any,
    unit_of: Callable[[str], str] = canonical_unit,
    on_card: Callable[[Card], None] | None = None,
) -> None:
    """Complete an explanation, write the recipes, and say why.

    Args:
        found: From `explain_campaign`; what the runs so far say is put into it.
        U: Proposed recipes, one per row.
        runs: The runs so far.
        recipes: Their recipes, one per row.
        ofv: What a run is worth.
        span: Width of the design space, by control.
        names: Controls, in array order.
        held: Controls that were held.
        taken: Names that runs have already.
        clone: Clone the runs are for.
        out: CSV file to write.
        console: Where to print.
        unit_of: Unit of a control.
        on_card: Is given what was concluded.
    """
    found["best_measured"] = best_measured(runs, ofv)
    found["remarks"] += repeated(U, recipes, [t.run_id for t in runs], span)
    found["remarks"] += moved_unseen(never_varied(runs, names), U, names, held, unit_of)
    write_recipes(out, U, names, new_ids(len(U), len(runs), set(taken)), clone, found, unit_of)
    lines = (*in_words(found, U, names, unit_of), *costs_in_words(found))
    card = proposal_card([shown_units(line) for line in lines], out)
    show_card(card, console)
    console.print(f"proposed runs: {out}", soft_wrap=True)
    if on_card is not None:
        on_card(card)


def proposal_card(lines: Sequence[str], out: Path) -> Card:
    """What a proposal concludes; its recipes are in the sentences, and to all digits in its table.

    Args:
        lines: The explanation, a line each.
        out: The table of recipes.
    """
    return Card("propose", "The next runs, and why", tuple(lines), source=f"table {out.name}")
