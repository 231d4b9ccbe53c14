"""`perfusio-jax benchmark run MODULE`: somebody's method on the frozen problems."""

import importlib
import importlib.util
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from perfusio_jax._core import ConfigError
from perfusio_jax.study.frozen.problem import FrozenProblem
from perfusio_jax.study.frozen.trial import Maker, Trial, run_trial

_OWN = {"random": "random_search"}


class Scored(NamedTuple):
    """A method on one problem."""

    problem: FrozenProblem
    trials: tuple[Trial, ...]
    """One for each seed."""
    seconds: float
    """Wall time of all of them, runs included [s]."""

    @property
    def last(self) -> np.ndarray:
        """Score of each seed when its budget was spent."""
        return np.array([trial.best[-1] for trial in self.trials])


def maker_of(what: str) -> Maker:
    """What makes a method: `make(space, seed)` of a module.

    Args:
        what: `random`, a module's name, or a file that ends in .py.

    Raises:
        ConfigError: If there is no such module, or it has no `make`.
    """
    try:
        module = _module(what)
    except ImportError as error:
        raise ConfigError(
            f"the method {what!r} cannot be loaded: {error}. Name {', '.join(_OWN)}, a module that "
            "is installed, or a file that ends in .py."
        ) from None
    make: Any = getattr(module, "make", None)
    if callable(make):
        return make  # pyright: ignore[reportReturnType]
    raise ConfigError(
        f"{what!r} has no function make(space, seed); it returns something with ask(n) and "
        "tell(x, value, slack)."
    )


def _module(what: str) -> Any:
    if what in _OWN:
        return importlib.import_module(f"perfusio_jax.service.benching.{_OWN[what]}")
    if not what.endswith(".py"):
        return importlib.import_module(what)
    path = Path(what)
    if not path.is_file():
        raise ConfigError(f"the method {what} does not exist.")
    spec = importlib.util.spec_from_file_location(f"method_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"the method {what} is no module.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_method(
    what: str, problems: Sequence[FrozenProblem], n_seeds: int, console: Any
) -> list[Scored]:
    """Run a method on problems, seed by seed.

    Args:
        what: As in `maker_of`.
        problems: Which.
        n_seeds: The first of their seeds.
        console: Where to say how far it is.

    Raises:
        ConfigError: If the method cannot be loaded, gives points that cannot be run, or this
            installation's plants are not those that were frozen.
    """
    make = maker_of(what)
    found = []
    for problem in problems:
        with console.status(f"{problem.name}: is the plant the frozen one?"):
            here = problem.found_digest()
        if here != problem.digest:
            raise ConfigError(
                f"{problem.name} gives other numbers here than when it was frozen ({here} instead "
                f"of {problem.digest}): figures could not be compared. Was the plant changed?"
            )
        begun, trials = time.perf_counter(), []
        for seed in problem.seeds[:n_seeds]:
            with console.status(f"{problem.name}, seed {seed}"):
                trials.append(run_trial(problem, make, seed))
        found.append(Scored(problem, tuple(trials), time.perf_counter() - begun))
    return found


def tell_scores(what: str, scored: list[Scored], console: Any, out: Path | None) -> None:
    """Show how good a method is, and write it.

    Args:
        what: The method.
        scored: From `run_method`.
        console: Where to print.
        out: JSON to write; nothing if None.
    """
    table = Table(title=f"{what}: score of the best run, 0 a usual random one, 1 the optimum")
    table.add_column("problem")
    for name in ("runs", "seeds", "middle", "worst", "best", "half-way", "limits kept", "s"):
        table.add_column(name, justify="right")
    rows = []
    for one in scored:
        space, last = one.problem.space, one.last
        n = space.batch * space.n_rounds
        half = np.array([trial.best[(space.n_rounds - 1) // 2] for trial in one.trials])
        kept = sum(trial.n_kept for trial in one.trials) / (n * len(one.trials))
        numbers = (np.median(last), last.min(), last.max(), np.median(half))
        cells = [*(f"{v:.3f}" for v in numbers), f"{kept:.0%}", f"{one.seconds:.0f}"]
        table.add_row(one.problem.name, str(n), str(len(one.trials)), *cells)
        rows.append(
            {
                "problem": one.problem.name,
                "digest": one.problem.digest,
                "method": what,
                "seeds": list(one.problem.seeds[: len(one.trials)]),
                "best_by_round": [_plain(trial.best) for trial in one.trials],
                "seconds": one.seconds,
            }
        )
    console.print(table)
    for one in scored:
        console.print(f"{one.problem.name}: {one.problem.text}", soft_wrap=True)
    if out is not None:
        out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        console.print(f"written: {out}", soft_wrap=True)


def _plain(values: np.ndarray) -> list[float | None]:
    """Numbers as JSON has them; what no run kept the limits for is null."""
    return [float(v) if np.isfinite(v) else None for v in values]
