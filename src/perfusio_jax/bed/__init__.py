"""Bayesian experimental design: objectives, acquisitions, the search and the daily policy."""

from perfusio_jax.bed.acquisitions import ACQUISITION_NAMES as ACQUISITION_NAMES
from perfusio_jax.bed.acquisitions import OWN_ACQUISITIONS as OWN_ACQUISITIONS
from perfusio_jax.bed.acquisitions import Acquisition as Acquisition
from perfusio_jax.bed.acquisitions import FallbackWarning as FallbackWarning
from perfusio_jax.bed.acquisitions import build_acquisition as build_acquisition
from perfusio_jax.bed.acquisitions import incumbent_value as incumbent_value
from perfusio_jax.bed.boxes import BoxDecomposition as BoxDecomposition
from perfusio_jax.bed.boxes import nondominated_boxes as nondominated_boxes
from perfusio_jax.bed.campaign import CampaignInfo as CampaignInfo
from perfusio_jax.bed.campaign import CampaignSettings as CampaignSettings
from perfusio_jax.bed.campaign import count_rollouts as count_rollouts
from perfusio_jax.bed.campaign import explain_campaign as explain_campaign
from perfusio_jax.bed.campaign import propose_runs as propose_runs
from perfusio_jax.bed.campaign import start_state as start_state
from perfusio_jax.bed.constraints import ChanceConstraint as ChanceConstraint
from perfusio_jax.bed.constraints import ControlCost as ControlCost
from perfusio_jax.bed.constraints import ControlLimits as ControlLimits
from perfusio_jax.bed.constraints import bleed_below_perfusion as bleed_below_perfusion
from perfusio_jax.bed.constraints import chance_feasibility as chance_feasibility
from perfusio_jax.bed.constraints import control_limits as control_limits
from perfusio_jax.bed.constraints import probability_kept as probability_kept
from perfusio_jax.bed.criteria import CellSpecificPerfusion as CellSpecificPerfusion
from perfusio_jax.bed.criteria import Criterion as Criterion
from perfusio_jax.bed.criteria import FinalValue as FinalValue
from perfusio_jax.bed.criteria import MediumPerGram as MediumPerGram
from perfusio_jax.bed.criteria import ProcessOFV as ProcessOFV
from perfusio_jax.bed.criteria import SpaceTimeYield as SpaceTimeYield
from perfusio_jax.bed.criteria import TrackingError as TrackingError
from perfusio_jax.bed.directions import (
    DirectionalHypervolumeImprovement as DirectionalHypervolumeImprovement,
)
from perfusio_jax.bed.draws import OutcomeConstraint as OutcomeConstraint
from perfusio_jax.bed.ensembles import EnsembleSurrogate as EnsembleSurrogate
from perfusio_jax.bed.ensembles import ensemble as ensemble
from perfusio_jax.bed.objectives import MultiObjectiveOFV as MultiObjectiveOFV
from perfusio_jax.bed.objectives import TargetSpec as TargetSpec
from perfusio_jax.bed.objectives import TargetTrackingOFV as TargetTrackingOFV
from perfusio_jax.bed.pareto import compute_pareto_front as compute_pareto_front
from perfusio_jax.bed.pareto import epsilon_indicator as epsilon_indicator
from perfusio_jax.bed.pareto import hypervolume as hypervolume
from perfusio_jax.bed.pareto import hypervolume_gradient as hypervolume_gradient
from perfusio_jax.bed.pareto import igd_plus as igd_plus
from perfusio_jax.bed.policies import BEDDecision as BEDDecision
from perfusio_jax.bed.policies import BEDPolicy as BEDPolicy
from perfusio_jax.bed.policies import ReactorNow as ReactorNow
from perfusio_jax.bed.policies import default_targets as default_targets
from perfusio_jax.bed.policies import explain as explain
from perfusio_jax.bed.policies import match_particles as match_particles
from perfusio_jax.bed.processes import ProcessSurrogate as ProcessSurrogate
from perfusio_jax.bed.processes import gaussian_process as gaussian_process
from perfusio_jax.bed.processes import gaussian_processes as gaussian_processes
from perfusio_jax.bed.progress import telling as telling
from perfusio_jax.bed.recommend import ROLLOUT_SETTINGS as ROLLOUT_SETTINGS
from perfusio_jax.bed.recommend import Outlook as Outlook
from perfusio_jax.bed.recommend import Preferences as Preferences
from perfusio_jax.bed.recommend import RecommendInfo as RecommendInfo
from perfusio_jax.bed.recommend import recommend as recommend
from perfusio_jax.bed.regions import TrustRegion as TrustRegion
from perfusio_jax.bed.sampling import normal_base_samples as normal_base_samples
from perfusio_jax.bed.sampling import sobol_points as sobol_points
from perfusio_jax.bed.search import SearchInfo as SearchInfo
from perfusio_jax.bed.search import SearchSettings as SearchSettings
from perfusio_jax.bed.search import choose_from_pool as choose_from_pool
from perfusio_jax.bed.search import describe_search as describe_search
from perfusio_jax.bed.search import optimise_acquisition as optimise_acquisition
from perfusio_jax.bed.search import (
    optimise_acquisition_with_info as optimise_acquisition_with_info,
)
from perfusio_jax.bed.search import optimise_sequentially as optimise_sequentially
from perfusio_jax.bed.steps import step_hours as step_hours
from perfusio_jax.bed.surrogates import GaussianSurrogate as GaussianSurrogate
from perfusio_jax.bed.surrogates import RolloutSurrogate as RolloutSurrogate
from perfusio_jax.bed.surrogates import Surrogate as Surrogate
