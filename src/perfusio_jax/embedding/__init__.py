"""Clones as vectors: transfer of what one cell line taught to another."""

from .clones import DEFAULT_DIM as DEFAULT_DIM
from .clones import PRIOR_CLONE as PRIOR_CLONE
from .clones import CloneInfo as CloneInfo
from .clones import CloneRegistry as CloneRegistry
from .clones import EntityEmbedding as EntityEmbedding
from .inputs import EmbeddedInputs as EmbeddedInputs
from .inputs import fit_embedded as fit_embedded
