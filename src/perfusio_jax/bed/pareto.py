"""Pareto fronts and their volume; `bed/goal` holds them."""

from perfusio_jax.bed.goal.pareto import compute_pareto_front as compute_pareto_front
from perfusio_jax.bed.goal.pareto import epsilon_indicator as epsilon_indicator
from perfusio_jax.bed.goal.pareto import hypervolume as hypervolume
from perfusio_jax.bed.goal.pareto import hypervolume_gradient as hypervolume_gradient
from perfusio_jax.bed.goal.pareto import igd_plus as igd_plus
