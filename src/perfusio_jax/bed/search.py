"""The search for a maximum; `bed/optimiser` holds it."""

from perfusio_jax.bed.optimiser.search import SearchInfo as SearchInfo
from perfusio_jax.bed.optimiser.search import SearchSettings as SearchSettings
from perfusio_jax.bed.optimiser.search import choose_from_pool as choose_from_pool
from perfusio_jax.bed.optimiser.search import describe_search as describe_search
from perfusio_jax.bed.optimiser.search import optimise_acquisition as optimise_acquisition
from perfusio_jax.bed.optimiser.search import (
    optimise_acquisition_with_info as optimise_acquisition_with_info,
)
from perfusio_jax.bed.optimiser.search import optimise_sequentially as optimise_sequentially
