"""Virtual reactors: the plant, its noise and faults, and designs of experiments."""

from .doe import box_behnken as box_behnken
from .doe import central_composite as central_composite
from .doe import latin_hypercube as latin_hypercube
from .doe import scale_to_bounds as scale_to_bounds
from .faults import Drift as Drift
from .faults import Fault as Fault
from .faults import Spike as Spike
from .faults import StuckSensor as StuckSensor
from .faults import SwappedReactors as SwappedReactors
from .faults import apply_faults as apply_faults
from .noise import NoiseModel as NoiseModel
from .noise import apply_noise as apply_noise
from .noise import default_cvs as default_cvs
from .noise import jitter_times as jitter_times
from .noise import viability_sd as viability_sd
