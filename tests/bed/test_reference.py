"""Posteriors and acquisition values against BoTorch's, stored with their base samples."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perfusio_jax.bed import build_acquisition, gaussian_process, gaussian_processes
from perfusio_jax.bed.acquisition.draws import OutcomeConstraint
from tests.reference import bed_cases as cases

STORE = np.load(cases.STORE)
DATA = cases.data()
CASES = cases.all_cases()


def process(*outputs):
    hyper = {k: DATA[k][list(outputs)] for k in ("lengthscale", "variance", "noise", "constant")}
    if len(outputs) > 1:
        return gaussian_processes(DATA["X"], DATA["Y"][:, list(outputs)], **hyper)
    hyper = {k: v[0] for k, v in hyper.items()}
    return gaussian_process(DATA["X"], DATA["Y"][:, outputs[0]], **hyper)


MODELS = {1: process(0), 2: process(0, 1), 3: process(0, 1, 2)}
LIMITED = process(3)


def ours(case):
    base = STORE[f"{case.key}.base"]
    arguments = {"q": case.q, "eta": cases.ETA}
    if case.has_constraint:
        arguments["constraints"] = [
            OutcomeConstraint(LIMITED, jnp.asarray(base[..., -1]), cases.LIMIT)
        ]
        arguments["fat"] = case.name.startswith("qLog")
    if base.size:
        if case.name == "qKG":
            arguments["sampler"] = base
        else:
            arguments["sampler"] = base[..., 0] if case.m == 1 else base[..., : case.m]
    if case.m == 1 and case.name == "qNParEGO":
        raise ValueError(case)
    if case.has_pending:
        arguments["X_pending"] = DATA["pending"]
    if case.name in ("PI", "EI", "LogEI", "qEI", "qLogEI"):
        arguments["best_f"] = cases.BEST_F
    if case.name in ("UCB", "qUCB"):
        arguments["beta"] = cases.BETA
    if case.name in ("qEHVI", "qNEHVI", "qLogNEHVI"):
        arguments["ref_point"] = cases.REFERENCE[: case.m]
    if case.name == "qEHVI":
        arguments["Y_baseline"] = DATA["Y"][:, : case.m]
    if case.name in ("qLogNEI", "qNEHVI", "qLogNEHVI", "qNParEGO"):
        arguments["X_baseline"] = DATA["X"]
    if case.name == "qNParEGO":
        arguments["weights"] = cases.WEIGHTS
    return build_acquisition(case.name, MODELS[case.m], **arguments)


@eqx.filter_jit
def values(acqfs, batches):
    return [jax.lax.map(lambda X, a=a: a(X), X) for a, X in zip(acqfs, batches, strict=True)]


def test_store_is_not_stale():
    assert str(STORE["script"]) == cases.script_hash(), (
        "the cases or the script have changed: run `python -m tests.reference.make_bed`"
    )


def test_posteriors():
    points = jnp.asarray(DATA["points"].reshape(-1, cases.DIMENSION))
    mean, variance = MODELS[1].posterior(points)
    np.testing.assert_allclose(mean, STORE["mean"], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(variance, STORE["variance"], rtol=1e-8, atol=1e-10)
    covariance = MODELS[1].covariance(points, points)
    np.testing.assert_allclose(covariance, STORE["covariance"], rtol=1e-8, atol=1e-10)
    mean, variance = MODELS[3].posterior(points)
    np.testing.assert_allclose(mean, STORE["means"], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(variance, STORE["variances"], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", sorted({case.name for case in CASES}))
def test_acquisition_values(name):
    """Closed forms to 1e-8, Monte Carlo and hypervolume kinds to 1e-6, on the same samples."""
    chosen = [case for case in CASES if case.name == name]
    batches = []
    for case in chosen:
        X = DATA["points"][:, : case.q]
        if name == "qKG":
            X = np.concatenate([X, DATA["decisions"]], axis=1)
        batches.append(jnp.asarray(X))
    found = values([ours(case) for case in chosen], batches)
    tolerance = 1e-8 if name in ("PI", "EI", "LogEI", "UCB") else 1e-6
    for case, value in zip(chosen, found, strict=True):
        expected = STORE[f"{case.key}.value"]
        assert np.any(expected != 0.0)
        np.testing.assert_allclose(
            value, expected, rtol=tolerance, atol=1e-3 * tolerance, err_msg=case.key
        )
