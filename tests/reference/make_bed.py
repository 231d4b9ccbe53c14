"""Store BoTorch's posteriors and acquisition values: `python -m tests.reference.make_bed`.

Needs the `bench` extra. The tests read `bed.npz` only. Each value comes with the base samples
that gave it, so that ours can be evaluated on the same ones.
"""

import warnings
from typing import Any

import numpy as np
import torch
from botorch import acquisition as single
from botorch.acquisition import multi_objective as multi
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.acquisition.multi_objective.objective import IdentityMCMultiOutputObjective
from botorch.acquisition.objective import GenericMCObjective
from botorch.models import SingleTaskGP
from botorch.sampling import SobolQMCNormalSampler
from botorch.utils.multi_objective.box_decompositions.non_dominated import (
    FastNondominatedPartitioning,
)
from botorch.utils.multi_objective.scalarization import get_chebyshev_scalarization
from gpytorch.kernels import MaternKernel, ScaleKernel

from tests.reference import bed_cases as cases
from tests.reference.bed_cases import Case

warnings.simplefilter("ignore")
torch.set_num_threads(1)
DATA = {name: torch.tensor(value) for name, value in cases.data().items()}


def make_model(outputs: list[int]) -> SingleTaskGP:
    """BoTorch's exact process with the given hyper-parameters."""
    m = len(outputs)
    shape = torch.Size([m] if m > 1 else [])
    kernel = ScaleKernel(
        MaternKernel(nu=2.5, ard_num_dims=cases.DIMENSION, batch_shape=shape), batch_shape=shape
    )
    model = SingleTaskGP(
        DATA["X"], DATA["Y"][:, outputs], covar_module=kernel, outcome_transform=None
    )
    chosen = {k: DATA[k][outputs] for k in ("lengthscale", "variance", "noise", "constant")}
    if m == 1:
        chosen = {k: v[0] for k, v in chosen.items()}
    lengthscale = chosen["lengthscale"]
    kernel.base_kernel.lengthscale = lengthscale[:, None, :] if m > 1 else lengthscale[None, :]
    kernel.outputscale = chosen["variance"]
    model.likelihood.noise = chosen["noise"][:, None] if m > 1 else chosen["noise"]
    model.mean_module.initialize(constant=chosen["constant"])
    return model.eval()


def constraint(samples: torch.Tensor) -> torch.Tensor:
    """The last output may not exceed the limit."""
    return samples[..., -1] - cases.LIMIT


def make_acquisition(case: Case, sampler: SobolQMCNormalSampler) -> Any:
    """BoTorch's acquisition of a case."""
    outputs = list(range(case.m)) + ([3] if case.has_constraint else [])
    model = make_model(outputs)
    common: dict[str, Any] = {"sampler": sampler}
    if case.has_pending:
        common["X_pending"] = DATA["pending"]
    if case.has_constraint:
        common |= {"constraints": [constraint], "eta": cases.ETA}
    first = GenericMCObjective(lambda Y, X=None: Y[..., 0])
    if case.has_constraint and case.m == 1:
        common["objective"] = first
    if case.m > 1 and case.name != "qNParEGO":
        common["objective"] = IdentityMCMultiOutputObjective(outcomes=list(range(case.m)))
    ref = torch.tensor(cases.REFERENCE[: case.m], dtype=torch.float64)
    baseline = {"X_baseline": DATA["X"], "prune_baseline": False}
    # a Python float would be rounded to single precision
    best = torch.tensor(cases.BEST_F, dtype=torch.float64)
    beta = torch.tensor(cases.BETA, dtype=torch.float64)
    match case.name:
        case "PI":
            return single.ProbabilityOfImprovement(model, best)
        case "EI":
            return single.ExpectedImprovement(model, best)
        case "LogEI":
            return single.LogExpectedImprovement(model, best)
        case "UCB":
            return single.UpperConfidenceBound(model, beta)
        case "qEI":
            return single.qExpectedImprovement(model, best, **common)
        case "qLogEI":
            return single.qLogExpectedImprovement(model, best, **common)
        case "qUCB":
            return single.qUpperConfidenceBound(model, cases.BETA, **common)
        case "qLogNEI":
            return qLogNoisyExpectedImprovement(model, **baseline, **common)
        case "qEHVI":
            boxes = FastNondominatedPartitioning(ref, DATA["Y"][:, : case.m])
            return multi.qExpectedHypervolumeImprovement(model, ref, boxes, **common)
        case "qNEHVI":
            return multi.qNoisyExpectedHypervolumeImprovement(model, ref, **baseline, **common)
        case "qLogNEHVI":
            return qLogNoisyExpectedHypervolumeImprovement(model, ref, **baseline, **common)
        case "qNParEGO":
            weights = torch.tensor(cases.WEIGHTS, dtype=torch.float64)
            mean = model.posterior(DATA["X"]).mean.detach()
            scalar = get_chebyshev_scalarization(weights, mean)
            objective = GenericMCObjective(lambda Y, X=None: scalar(Y))
            if case.has_pending:
                # pending points belong to the baseline, as in the logarithmic kinds
                common.pop("X_pending")
                baseline["X_baseline"] = torch.cat([DATA["X"], DATA["pending"]])
            return single.qNoisyExpectedImprovement(
                model, objective=objective, **baseline, **common
            )
    raise ValueError(case.name)


def knowledge(case: Case, X: torch.Tensor, Z: torch.Tensor) -> tuple[float, np.ndarray]:
    """One-shot knowledge gradient and its base samples."""
    sampler = SobolQMCNormalSampler(torch.Size([cases.N_FANTASIES]), seed=case.q)
    acqf = single.qKnowledgeGradient(
        make_model([0]),
        num_fantasies=cases.N_FANTASIES,
        sampler=sampler,
        X_pending=DATA["pending"] if case.has_pending else None,
    )
    value = acqf(torch.cat([X, Z])[None])
    return float(value), sampler.base_samples.reshape(cases.N_FANTASIES, -1).numpy()


def evaluate(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Values at three batches, and base samples (one set: they do not depend on the batch)."""
    batches = DATA["points"][:, : case.q]
    if case.name == "qKG":
        found = [knowledge(case, X, Z) for X, Z in zip(batches, DATA["decisions"], strict=True)]
        return np.array([value for value, _ in found]), found[0][1]
    sampler = SobolQMCNormalSampler(torch.Size([cases.N_SAMPLES]), seed=7)
    acqf = make_acquisition(case, sampler)
    with torch.no_grad():
        values = [float(acqf(X[None])) for X in batches]
    used = acqf.sampler if hasattr(acqf, "sampler") else sampler
    base = getattr(used, "base_samples", None)
    if base is None:
        return np.array(values), np.zeros(0)
    n_outputs = case.m + case.has_constraint
    base = base.reshape(cases.N_SAMPLES, -1, n_outputs)
    return np.array(values), base.numpy()


def main() -> None:
    """Evaluate every case and write the store."""
    store: dict[str, Any] = {"script": np.array(cases.script_hash())}
    points = DATA["points"].reshape(-1, cases.DIMENSION)
    posterior = make_model([0]).posterior(points)
    store["mean"] = posterior.mean[:, 0].detach().numpy()
    store["variance"] = posterior.variance[:, 0].detach().numpy()
    store["covariance"] = posterior.mvn.covariance_matrix.detach().numpy()
    several = make_model([0, 1, 2]).posterior(points)
    store["means"] = several.mean.detach().numpy()
    store["variances"] = several.variance.detach().numpy()
    for case in cases.all_cases():
        values, base = evaluate(case)
        store[f"{case.key}.value"], store[f"{case.key}.base"] = values, base
        print(f"{case.key:20s} {base.shape} {values}", flush=True)
    np.savez_compressed(cases.STORE, **store)
    print(f"{cases.STORE}: {cases.STORE.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
