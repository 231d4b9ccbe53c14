"""The transfer experiment: what earlier products are worth to a new one with few runs.

For each number of runs of the novel product three models are fitted and roll out the test
runs from their first sample: on the novel runs alone; on all products with one-hot coding; on
all products with an embedding. Both joint models are fitted in the same way: parameters are
searched on a random part of the historic rows once, then, starting there, together with the
new product's own entry on historic and novel rows; the process is conditioned on all rows.

Reference:
    Hutter et al. (2021), doi:10.1002/bit.27907.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import ConfigError, DataError, Key
from perfusio_jax.embedding.rolling import relative_error, roll_out
from perfusio_jax.embedding.rows import RateRows, join_rows, rate_rows, thin
from perfusio_jax.embedding.study_gp import (
    SHORT_START,
    Coding,
    Found,
    Search,
    best_fit,
    candidates,
    embedding_of,
    newcomers,
    rate_process,
    with_lengthscale,
    with_rows,
)
from perfusio_jax.gp import MultiTaskRateGP
from perfusio_jax.simulator import (
    FED_BATCH_SPECIES,
    Family,
    FedBatchRuns,
    draw_conditions,
    sample_products,
    simulate_fed_batch,
)

METHODS: Final[tuple[Coding, ...]] = ("none", "one-hot", "embedding")
"""Novel product alone, one-hot coding, embedding."""

COUNTS: Final[tuple[int, ...]] = (2, 4, 6, 8, 12, 16)
"""Numbers of runs of the novel product in the published experiment."""

PUBLISHED: Final[dict[tuple[str, str], tuple[float, ...]]] = {
    ("Titer", "none"): (0.911, 0.725, 0.592, 0.506, 0.381, 0.317),
    ("Titer", "one-hot"): (0.964, 0.610, 0.529, 0.470, 0.404, 0.367),
    ("Titer", "embedding"): (0.815, 0.534, 0.471, 0.414, 0.357, 0.333),
    ("VCD", "none"): (0.687, 0.558, 0.459, 0.371, 0.269, 0.217),
    ("VCD", "one-hot"): (0.564, 0.368, 0.306, 0.262, 0.225, 0.198),
    ("VCD", "embedding"): (0.454, 0.295, 0.251, 0.215, 0.189, 0.173),
}
"""Median relative errors of Hutter et al. (2021) by species and method, at `COUNTS`."""

_BLOCK = 112


class StudyData(NamedTuple):
    """Runs of a transfer study; the novel product has the highest index."""

    historic: FedBatchRuns
    """Runs of earlier products."""
    novel: FedBatchRuns
    """Runs of the novel product one may train on."""
    test: FedBatchRuns
    """Further runs of the novel product."""
    products: tuple[str, ...]
    """Names by index."""
    species: tuple[str, ...] = FED_BATCH_SPECIES
    """What was read, in the order of the readings."""


class Record(NamedTuple):
    """One fitted model and how it forecast the test runs."""

    method: str
    """One of `METHODS`."""
    n_runs: int
    """Runs of the novel product in training."""
    errors: tuple[float, ...]
    """Median relative error per species [-]."""
    log_evidence: float
    """Log evidence of the rows searched."""
    n_evaluations: int
    """Iterations of the search."""


class StudyConfig(eqx.Module):
    """Settings of a study."""

    counts: tuple[int, ...] = eqx.field(static=True, default=COUNTS)
    """Numbers of novel runs."""
    dim: int = eqx.field(static=True, default=3)
    """Length of the embedding vectors (the published choice)."""
    max_rows: int = eqx.field(static=True, default=360)
    """Historic rows the search looks at; conditioning uses all."""
    first: Search = eqx.field(static=True, default=Search(60))
    """Search on historic rows."""
    second: Search = eqx.field(static=True, default=Search(50))
    """Search with the novel product's rows added."""
    alone: Search = eqx.field(static=True, default=Search(60))
    """Search on the novel product's rows alone."""


def study_config(
    *,
    counts: Sequence[int] = COUNTS,
    dim: int = 3,
    own_noise: bool = False,
    max_rows: int = 360,
    effort: float = 1.0,
) -> StudyConfig:
    """Settings of a study by the few that matter.

    Args:
        counts: Numbers of novel runs.
        dim: Length of the embedding vectors.
        own_noise: Each species its own signal and noise variance; the published form shares
            one.
        max_rows: Historic rows the search looks at.
        effort: Factor on the iterations of every search [-].

    Returns:
        The settings.
    """
    first, second = (Search(max(5, round(effort * n)), own_noise) for n in (60, 50))
    return StudyConfig(
        counts=tuple(counts), dim=dim, max_rows=max_rows, first=first, second=second, alone=first
    )


def simulate_study(
    key: Key,
    *,
    n_consuming: int = 2,
    n_producing: int = 3,
    n_historic: int = 16,
    n_novel: int = 16,
    n_test: int = 100,
    family: Family = "traits",
    spread: float = 1.0,
) -> StudyData:
    """The published experiment with products of our own simulator.

    Args:
        key: Random key; other products and runs for each.
        n_consuming: Historic products that consume lactate.
        n_producing: Historic products that do not.
        n_historic: Runs of each historic product.
        n_novel: Runs of the novel product to train on.
        n_test: Test runs of the novel product.
        family: How constants vary between products, see `sample_products`.
        spread: Factor on how much they vary within the products that consume lactate, and
            within those that do not [-].

    Returns:
        The runs.
    """
    k_products, k_noise, k_test, *k_design = jax.random.split(key, 4 + n_consuming + n_producing)
    products = sample_products(
        k_products, n_consuming=n_consuming, n_producing=n_producing, family=family, spread=spread
    )
    historic = n_consuming + n_producing
    sizes = [n_historic] * historic + [n_novel, n_test]
    tables = [draw_conditions(k, n) for k, n in zip([*k_design, k_test], sizes, strict=True)]
    owner = np.repeat([*range(historic), historic, historic], sizes)
    runs = simulate_fed_batch(products, owner, np.concatenate(tables), key=k_noise)
    edges = np.cumsum([n_historic * historic, n_novel, n_test])
    parts = [take(runs, np.arange(a, b)) for a, b in zip([0, *edges[:-1]], edges, strict=True)]
    names = (*(f"product {i + 1}" for i in range(historic)), "novel product")
    return StudyData(parts[0], parts[1], parts[2], names)


def take(runs: FedBatchRuns, index: np.ndarray) -> FedBatchRuns:
    """Some of the runs."""
    return FedBatchRuns(*(v[index] for v in runs))


def check_study(data: StudyData, counts: Sequence[int]) -> None:
    """Refuse a study that cannot be run.

    Args:
        data: Historic, novel and test runs.
        counts: Numbers of novel runs to learn from, one after the other.

    Raises:
        DataError: If a part is empty, or the novel product is among the historic ones.
        ConfigError: If no number is given, or one is below one or above the novel runs there are.
    """
    last = len(data.products) - 1
    for name in ("historic", "novel", "test"):
        if getattr(data, name).measured.shape[0] == 0:
            raise DataError(f"the study has no {name} run; it needs at least one of each role.")
    if bool(jnp.any(data.historic.product >= last)):
        raise DataError("a historic run belongs to the novel product.")
    available = data.novel.measured.shape[0]
    wrong = [n for n in counts if not 1 <= n <= available]
    if wrong or not counts:
        raise ConfigError(
            f"numbers of novel runs {list(counts)}; allowed are 1 to {available}, the runs there "
            "are."
        )


class _Base(NamedTuple):
    model: MultiTaskRateGP
    searched: RateRows
    rows: RateRows


def _starts(model: MultiTaskRateGP) -> list[MultiTaskRateGP]:
    return [model, with_lengthscale(model, SHORT_START)]


def _fit_historic(data: StudyData, coding: Coding, config: StudyConfig, key: Key) -> _Base:
    k_thin, k_fit = jax.random.split(key)
    rows = rate_rows(data.historic)
    searched = thin(rows, config.max_rows, key=k_thin)
    k_table, k_search = jax.random.split(k_fit)
    table = embedding_of(coding, len(data.products), config.dim, key=k_table)
    start = rate_process(searched, table, config.first)
    tables = None if table is None else candidates(table, key=k_search)
    model, _ = best_fit(_starts(start), tables, config.first)
    return _Base(model, searched, rows)


def _capacity(rows: RateRows) -> int:
    """Rows reserved, so that a few runs more do not mean a new compile."""
    return -(-len(rows.product) // _BLOCK) * _BLOCK


def fit_joint(
    base: _Base, novel: RateRows, config: StudyConfig, *, key: Key
) -> tuple[MultiTaskRateGP, Found]:
    """Add the novel product's rows, search everything together, condition on all rows."""
    table = base.model.scaling.embedding
    rows = join_rows(base.searched, novel)
    start = rate_process(rows, table, config.second, like=base.model, capacity=_capacity(rows))
    tables = newcomers(table, key=key)
    model, found = best_fit(_starts(start), tables, config.second)
    whole = join_rows(base.rows, novel)
    return with_rows(model, whole, capacity=_capacity(whole)), found


def fit_alone(novel: RateRows, config: StudyConfig) -> tuple[MultiTaskRateGP, Found]:
    """The novel product without the others."""
    start = rate_process(novel, None, config.alone, capacity=_capacity(novel))
    model, found = best_fit(_starts(start), None, config.alone)
    return with_rows(model, novel, capacity=_capacity(novel)), found


def score(model: MultiTaskRateGP, test: FedBatchRuns) -> tuple[float, ...]:
    """Median relative error per species over the test runs, from their first sample on."""
    start = jnp.maximum(test.measured[:, 0], 0.0)
    return tuple(float(e) for e in relative_error(roll_out(model, test, start), test.truth))


def study_repeat(
    data: StudyData,
    config: StudyConfig | None = None,
    *,
    key: Key,
    methods: Sequence[Coding] = METHODS,
) -> Iterator[Record]:
    """One repeat: all methods at all numbers of novel runs.

    Args:
        data: Runs; the novel ones are taken in a random order.
        config: Settings.
        key: Random key.
        methods: Which methods.

    Yields:
        One record per model, as soon as it is there.

    Raises:
        DataError: If the data are not a study.
        ConfigError: If the settings do not fit the data.
    """
    config = StudyConfig() if config is None else config
    check_study(data, config.counts)
    k_order, k_base, k_fit = jax.random.split(key, 3)
    order = np.asarray(jax.random.permutation(k_order, data.novel.measured.shape[0]))
    bases = {
        coding: _fit_historic(data, coding, config, k_base)
        for coding in METHODS
        if coding != "none" and coding in methods
    }
    for count in config.counts:
        rows = rate_rows(take(data.novel, order[:count]))
        for coding in methods:
            k = jax.random.fold_in(jax.random.fold_in(k_fit, count), METHODS.index(coding))
            if coding == "none":
                model, info = fit_alone(rows, config)
            else:
                model, info = fit_joint(bases[coding], rows, config, key=k)
            yield Record(
                coding,
                count,
                score(model, data.test),
                float(info.log_evidence),
                int(info.n_iterations),
            )


def evidence_by_dimension(
    data: StudyData,
    dims: Sequence[int] = (1, 2, 3, 4, 5),
    config: StudyConfig | None = None,
    *,
    n_runs: int = 8,
    key: Key,
) -> list[tuple[int, float]]:
    """Log evidence of the joint model for each length of the vectors.

    Args:
        data: Runs.
        dims: Lengths to try.
        config: Settings.
        n_runs: Runs of the novel product.
        key: Random key.

    Returns:
        Length and log evidence of the rows searched.
    """
    config = StudyConfig() if config is None else config
    check_study(data, (n_runs,))
    rows = rate_rows(take(data.novel, np.arange(n_runs)))
    out = []
    for dim in dims:
        here = dataclasses.replace(config, dim=dim)
        base = _fit_historic(data, "embedding", here, key)
        _, info = fit_joint(base, rows, here, key=jax.random.fold_in(key, dim))
        out.append((dim, float(info.log_evidence)))
    return out
