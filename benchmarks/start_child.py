"""One command or entry point in a process of its own, measured from within: see `start`.

`python -m benchmarks.start_child OUT COMMAND ...` runs the command line; COMMAND may also be
`import`, `decision MODEL CAMPAIGN` or `rack MODEL CAMPAIGN REACTORS`. What it took goes to OUT as
JSON: CPU seconds, and how many programs were asked for and compiled.
"""

import json
import os
import resource
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ASKED = "/jax/compilation_cache/compile_requests_use_cache"
FETCHED = "/jax/compilation_cache/cache_hits"
DAY = 8
"""Culture day [d] on which is decided."""


def count_programs() -> Counter[str]:
    """Counts what JAX asks of its compiler from here on."""
    import jax

    seen: Counter[str] = Counter()
    jax.monitoring.register_event_listener(lambda name, **_: seen.update([name]))
    return seen


def loaded(model_folder: str, campaign: str, n: int) -> tuple[Any, list[Any]]:
    """A fitted model, and the first days of some runs."""
    from perfusio_jax.cli.common import set_up_jax

    set_up_jax()
    from perfusio_jax.connectors import read_campaign
    from perfusio_jax.hybrid import load

    runs = read_campaign(Path(campaign)).trajectories[:n]
    return load(Path(model_folder)), [run.slice_days(0, DAY + 1) for run in runs]


def a_policy(model: Any) -> Any:
    """The policy a twin has if nobody says otherwise, with a target."""
    from perfusio_jax.bed import BEDPolicy, TargetSpec
    from perfusio_jax.config import DEFAULT_AMBR250_DESIGN_SPACE

    return BEDPolicy(
        model,
        DEFAULT_AMBR250_DESIGN_SPACE.replace(viability_min=90.0),
        targets=[TargetSpec(1, 16.0)],
    )


def in_force(run: Any) -> dict[str, float]:
    """Set-points of the last day of a run."""
    import numpy as np

    from perfusio_jax._core import CONTROL_NAMES

    return dict(zip(CONTROL_NAMES, map(float, np.asarray(run.controls)[-1]), strict=True))


def decision(model_folder: str, campaign: str) -> None:
    """What a twin does after a sample: state, search, forecasts."""
    from perfusio_jax.twin import decide

    model, (run,) = loaded(model_folder, campaign, 1)
    decide(run, model, a_policy(model), seed=0, u_now=in_force(run))


def rack(model_folder: str, campaign: str, reactors: str) -> None:
    """A joint decision on several vessels."""
    import jax

    model, runs = loaded(model_folder, campaign, int(reactors))
    from perfusio_jax.bed import ReactorNow
    from perfusio_jax.hybrid import assimilate_run

    vessels = []
    for k, run in enumerate(runs):
        beliefs = assimilate_run(model, run.strip_ids(), key=jax.random.key(k), length=2 * DAY)
        belief = beliefs.belief(run.n_days - 1)
        vessels.append(ReactorNow(belief, DAY, in_force(run), reactor_id=f"R{k + 1:02d}"))
    a_policy(model).decide_rack(vessels, seed=0)


def main() -> None:
    """Run what the arguments say."""
    out, what, *more = sys.argv[1:]
    if what != "import":
        from perfusio_jax.cli.compiling import choose_pains

        # as the command line does before JAX is there; decision and rack are what `run` does
        choose_pains(["run" if what in ("decision", "rack") else what])
    bare = what in ("import", "--help", "status")  # JAX is not to be loaded for these
    seen = Counter() if bare else count_programs()
    if what == "import":
        import perfusio_jax

        names = dir(perfusio_jax)
        print(f"{len(names)} names")
    elif what == "decision":
        decision(*more)
    elif what == "rack":
        rack(*more)
    else:
        from perfusio_jax import cli

        try:
            cli.main([what, *more])
        except SystemExit as end:
            if end.code:
                raise
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_gb": used.ru_maxrss / 1e6,
        "requests": seen[ASKED],
        "compiled": seen[ASKED] - seen[FETCHED],
    }
    Path(out).write_text(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # what a closing interpreter frees is not what a person waits for


if __name__ == "__main__":
    main()
