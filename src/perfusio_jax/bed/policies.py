"""The daily decision; `bed/policy` holds it."""

from perfusio_jax.bed.policy.policies import BEDDecision as BEDDecision
from perfusio_jax.bed.policy.policies import BEDPolicy as BEDPolicy
from perfusio_jax.bed.policy.policies import ReactorNow as ReactorNow
from perfusio_jax.bed.policy.policies import default_targets as default_targets
from perfusio_jax.bed.policy.policies import explain as explain
from perfusio_jax.bed.policy.policies import match_particles as match_particles
from perfusio_jax.bed.policy.policies import recommend as recommend
