"""Clones as vectors: transfer of what one cell line taught to another."""

from .clones import DEFAULT_DIM as DEFAULT_DIM
from .clones import PRIOR_CLONE as PRIOR_CLONE
from .clones import CloneInfo as CloneInfo
from .clones import CloneRegistry as CloneRegistry
from .clones import EntityEmbedding as EntityEmbedding
from .fedbatch import CONTROLS as CONTROLS
from .fedbatch import SPECIES as SPECIES
from .fedbatch import FedBatchRuns as FedBatchRuns
from .fedbatch import simulate_fed_batch as simulate_fed_batch
from .inputs import EmbeddedInputs as EmbeddedInputs
from .inputs import fit_embedded as fit_embedded
from .posterior import EmbeddingPosterior as EmbeddingPosterior
from .posterior import laplace as laplace
from .posterior import nuts as nuts
from .study import COUNTS as COUNTS
from .study import METHODS as METHODS
from .study import PUBLISHED as PUBLISHED
from .study import Record as Record
from .study import StudyConfig as StudyConfig
from .study import StudyData as StudyData
from .study import evidence_by_dimension as evidence_by_dimension
from .study import simulate_study as simulate_study
from .study import study_repeat as study_repeat
from .transfer import Mixture as Mixture
from .transfer import TransferLearner as TransferLearner
