"""Objectives over roll-outs of a model; `bed/goal` holds them."""

from perfusio_jax.bed.goal.objectives import MultiObjectiveOFV as MultiObjectiveOFV
from perfusio_jax.bed.goal.objectives import TargetSpec as TargetSpec
from perfusio_jax.bed.goal.objectives import TargetTrackingOFV as TargetTrackingOFV
