"""Posteriors made by hand: draws as a test wants them, and nothing that was calibrated."""

import numpy as np

from perfusio_jax.mechanistic import build_of
from perfusio_jax.study.calibration.checks import Check
from perfusio_jax.study.calibration.posterior import Posterior


def made_posterior(names, draws, problems=()) -> Posterior:
    """One clone, one chain for each row of `draws` (C, S, P)."""
    draws = np.asarray(draws, float)
    c, s, p = draws.shape
    nothing = Check(
        columns=("VCD",),
        quantiles=np.zeros((5, 1, 2, 1)),
        place=np.full((1, 2, 1), np.nan),
        inside={0.8: np.zeros(1), 0.95: np.zeros(1)},
        n_read=np.zeros(1),
        n_lost=0,
        n_draws=1,
    )
    return Posterior(
        names=tuple(names),
        units=("-",) * p,
        prior=np.ones((3, p)),
        draws=draws,
        by_clone=draws[:, :, None],
        clones=("all",),
        noise=np.ones((c, s, 1)),
        columns=("VCD",),
        column_units=("1e6 cells/mL",),
        starts=np.ones((c, s, 1, 4)),
        run_ids=("r",),
        method="map",
        diagnostics=None,
        check=nothing,
        before=nothing,
        problems=tuple(problems),
        notes=(),
    )


def culture_of(described, mechanism, named="tests.twin.described:Foreign", **more):
    """What a posterior of a culture says it is of."""
    return {
        "process": described.name,
        "mechanism": named,
        "description": described.model_dump(mode="json", exclude_defaults=True),
        "build": build_of(mechanism).as_json(),
        **more,
    }
