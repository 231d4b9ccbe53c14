"""The transfer experiment: what earlier products are worth to a new one with few runs.

For each number of runs of the novel product three models are fitted and roll out the test
runs from their first sample: on the novel runs alone; on all products with one-hot coding; on
all products with an embedding. Both joint models are fitted in the same way: parameters are
searched on a random part of the historic rows once, then, starting there, together with the
new product's own entry on historic and novel rows; the process is conditioned on all rows.

Reference:
    Hutter et al. (2021), doi:10.1002/bit.27907.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from perfusio_jax._core import ConfigError, DataError, Key
from perfusio_jax.embedding.clones import START_RANGE
from perfusio_jax.embedding.product_gp import (
    SHORT_START,
    Coding,
    FitInfo,
    ProductGP,
    ProductKernel,
    RateRows,
    Settings,
    coding_mask,
    condition,
    fit_products,
    fit_scales,
    join_rows,
    rate_rows,
    relative_error,
    roll_out,
    search_all,
    thin,
    with_lengthscale,
)
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
    """Evaluations of the search."""


class StudyConfig(eqx.Module):
    """Settings of a study."""

    counts: tuple[int, ...] = eqx.field(static=True, default=COUNTS)
    """Numbers of novel runs."""
    dim: int = eqx.field(static=True, default=3)
    """Length of the embedding vectors (the published choice)."""
    max_rows: int = eqx.field(static=True, default=360)
    """Historic rows the search looks at; conditioning uses all."""
    first: Settings = Settings(max_evaluations=60)
    """Search on historic rows."""
    second: Settings = Settings(max_evaluations=50)
    """Search with the novel product's rows added."""
    alone: Settings = Settings(max_evaluations=60)
    """Search on the novel product's rows alone."""


def study_config(
    *,
    counts: Sequence[int] = COUNTS,
    dim: int = 3,
    own_noise: bool = False,
    max_rows: int | None = None,
    effort: float = 1.0,
) -> StudyConfig:
    """Settings of a study by the few that matter.

    Args:
        counts: Numbers of novel runs.
        dim: Length of the embedding vectors.
        own_noise: Each species its own signal and noise variance; the published form shares
            one. Costs as many Cholesky factors as there are species.
        max_rows: Historic rows the search looks at; 360, or 240 with `own_noise`.
        effort: Factor on the evaluations of every search [-].

    Returns:
        The settings.
    """
    first, second = (
        Settings(max_evaluations=max(5, round(effort * n)), own_noise=own_noise) for n in (60, 50)
    )
    rows = (240 if own_noise else 360) if max_rows is None else max_rows
    return StudyConfig(
        counts=tuple(counts), dim=dim, max_rows=rows, first=first, second=second, alone=first
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

    Raises:
        DataError: If a part is empty, or the novel product is among the historic ones.
        ConfigError: If more novel runs are asked for than there are.
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
    coding: Coding
    kernel: ProductKernel
    searched: RateRows
    rows: RateRows


def _fit_historic(data: StudyData, coding: Coding, config: StudyConfig, key: Key) -> _Base:
    k_thin, k_fit = jax.random.split(key)
    rows = rate_rows(data.historic)
    searched = thin(rows, config.max_rows, key=k_thin)
    mask = coding_mask(coding, len(data.products), config.dim)
    kernel, _, _ = fit_products(searched, mask=mask, key=k_fit, settings=config.first)
    return _Base(coding, kernel, searched, rows)


def _starts(base: ProductKernel, coding: Coding, *, key: Key, n: int = 12) -> ProductKernel:
    """The fitted kernel with candidates for the novel product's row of the table.

    With an embedding: each historic product's vector, the mean one, and draws around it. With
    one-hot coding: draws from a range about that of the fitted entries.
    """
    table = base.vectors * base.mask
    known = table[:-1]
    if coding == "one-hot":
        lo, hi = START_RANGE
        rows = jax.random.uniform(key, (n, table.shape[1]), minval=0.1 * lo, maxval=0.5 * hi)
    else:
        centre, spread = jnp.mean(known, axis=0), jnp.std(known, axis=0) + 0.1
        z = jax.random.normal(key, (n, table.shape[1]))
        rows = jnp.concatenate([known, centre[None, :], centre[None, :] + spread[None, :] * z])[:n]
    rows = rows * base.mask[-1][None, :]
    many = jax.tree.map(lambda v: jnp.broadcast_to(v, (n, *v.shape)), base)
    return eqx.tree_at(lambda k: k.vectors, many, many.vectors.at[:, -1].set(rows))


def _capacity(size: int) -> int:
    return int(np.ceil(size / _BLOCK)) * _BLOCK


def fit_joint(
    base: _Base, novel: RateRows, config: StudyConfig, *, key: Key
) -> tuple[ProductGP, FitInfo]:
    """Add the novel product's rows, search everything together, condition on all rows."""
    n_new = int(jnp.sum(novel.present))
    size = base.searched.features.shape[0]
    rows = join_rows(base.searched, novel, capacity=_capacity(size + n_new))
    scales = fit_scales(rows)
    starts = _starts(base.kernel, base.coding, key=key)
    groups = (starts, with_lengthscale(starts, SHORT_START))
    kernel, info = search_all(groups, rows, scales, config.second)
    whole = join_rows(base.rows, novel, capacity=_capacity(base.rows.features.shape[0] + n_new))
    return condition(kernel, whole, scales), info


def fit_alone(
    novel: RateRows, n_products: int, config: StudyConfig, *, key: Key
) -> tuple[ProductGP, FitInfo]:
    """The novel product without the others."""
    rows = join_rows(novel, capacity=_capacity(int(jnp.sum(novel.present))))
    mask = coding_mask("none", n_products, config.dim)
    kernel, scales, info = fit_products(rows, mask=mask, key=key, settings=config.alone)
    return condition(kernel, rows, scales), info


def score(model: ProductGP, test: FedBatchRuns) -> tuple[float, ...]:
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
    last = len(data.products)
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
                model, info = fit_alone(rows, last, config, key=k)
            else:
                model, info = fit_joint(bases[coding], rows, config, key=k)
            yield Record(
                coding,
                count,
                score(model, data.test),
                float(info.log_evidence),
                int(info.n_evaluations),
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
        here = eqx.tree_at(lambda c: c.dim, config, dim)
        base = _fit_historic(data, "embedding", here, key)
        _, info = fit_joint(base, rows, here, key=jax.random.fold_in(key, dim))
        out.append((dim, float(info.log_evidence)))
    return out
