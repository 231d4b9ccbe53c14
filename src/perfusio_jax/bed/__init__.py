"""Bayesian experimental design: objectives, acquisitions, the search and the daily policy."""

from perfusio_jax.bed.acquisition.acquisitions import ACQUISITION_NAMES as ACQUISITION_NAMES
from perfusio_jax.bed.acquisition.acquisitions import OWN_ACQUISITIONS as OWN_ACQUISITIONS
from perfusio_jax.bed.acquisition.acquisitions import Acquisition as Acquisition
from perfusio_jax.bed.acquisition.acquisitions import FallbackWarning as FallbackWarning
from perfusio_jax.bed.acquisition.acquisitions import build_acquisition as build_acquisition
from perfusio_jax.bed.acquisition.acquisitions import incumbent_value as incumbent_value
from perfusio_jax.bed.acquisition.boxes import BoxDecomposition as BoxDecomposition
from perfusio_jax.bed.acquisition.boxes import nondominated_boxes as nondominated_boxes
from perfusio_jax.bed.acquisition.directions import (
    DirectionalHypervolumeImprovement as DirectionalHypervolumeImprovement,
)
from perfusio_jax.bed.acquisition.draws import OutcomeConstraint as OutcomeConstraint
from perfusio_jax.bed.goal.constraints import ChanceConstraint as ChanceConstraint
from perfusio_jax.bed.goal.constraints import ControlCost as ControlCost
from perfusio_jax.bed.goal.constraints import ControlLimits as ControlLimits
from perfusio_jax.bed.goal.constraints import bleed_below_perfusion as bleed_below_perfusion
from perfusio_jax.bed.goal.constraints import chance_feasibility as chance_feasibility
from perfusio_jax.bed.goal.constraints import control_limits as control_limits
from perfusio_jax.bed.goal.constraints import probability_kept as probability_kept
from perfusio_jax.bed.goal.criteria import CellSpecificPerfusion as CellSpecificPerfusion
from perfusio_jax.bed.goal.criteria import Criterion as Criterion
from perfusio_jax.bed.goal.criteria import FinalValue as FinalValue
from perfusio_jax.bed.goal.criteria import MediumPerGram as MediumPerGram
from perfusio_jax.bed.goal.criteria import ProcessOFV as ProcessOFV
from perfusio_jax.bed.goal.criteria import SpaceTimeYield as SpaceTimeYield
from perfusio_jax.bed.goal.criteria import TrackingError as TrackingError
from perfusio_jax.bed.goal.objectives import MultiObjectiveOFV as MultiObjectiveOFV
from perfusio_jax.bed.goal.objectives import TargetSpec as TargetSpec
from perfusio_jax.bed.goal.objectives import TargetTrackingOFV as TargetTrackingOFV
from perfusio_jax.bed.goal.pareto import compute_pareto_front as compute_pareto_front
from perfusio_jax.bed.goal.pareto import epsilon_indicator as epsilon_indicator
from perfusio_jax.bed.goal.pareto import hypervolume as hypervolume
from perfusio_jax.bed.goal.pareto import hypervolume_gradient as hypervolume_gradient
from perfusio_jax.bed.goal.pareto import igd_plus as igd_plus
from perfusio_jax.bed.goal.steps import step_hours as step_hours
from perfusio_jax.bed.optimiser.ascent import SearchInfo as SearchInfo
from perfusio_jax.bed.optimiser.progress import telling as telling
from perfusio_jax.bed.optimiser.regions import TrustRegion as TrustRegion
from perfusio_jax.bed.optimiser.sampling import normal_base_samples as normal_base_samples
from perfusio_jax.bed.optimiser.sampling import sobol_points as sobol_points
from perfusio_jax.bed.optimiser.search import choose_from_pool as choose_from_pool
from perfusio_jax.bed.optimiser.search import describe_search as describe_search
from perfusio_jax.bed.optimiser.search import optimise_acquisition as optimise_acquisition
from perfusio_jax.bed.optimiser.search import (
    optimise_acquisition_with_info as optimise_acquisition_with_info,
)
from perfusio_jax.bed.optimiser.search import optimise_sequentially as optimise_sequentially
from perfusio_jax.bed.optimiser.settings import SearchSettings as SearchSettings
from perfusio_jax.bed.policy.campaign import propose_runs as propose_runs
from perfusio_jax.bed.policy.campaign_settings import CampaignSettings as CampaignSettings
from perfusio_jax.bed.policy.campaign_settings import count_rollouts as count_rollouts
from perfusio_jax.bed.policy.campaign_words import explain_campaign as explain_campaign
from perfusio_jax.bed.policy.diagnostics import RecommendInfo as RecommendInfo
from perfusio_jax.bed.policy.effort import ROLLOUT_SETTINGS as ROLLOUT_SETTINGS
from perfusio_jax.bed.policy.expectations import CampaignInfo as CampaignInfo
from perfusio_jax.bed.policy.outlook import Outlook as Outlook
from perfusio_jax.bed.policy.policies import BEDDecision as BEDDecision
from perfusio_jax.bed.policy.policies import BEDPolicy as BEDPolicy
from perfusio_jax.bed.policy.policies import ReactorNow as ReactorNow
from perfusio_jax.bed.policy.policies import default_targets as default_targets
from perfusio_jax.bed.policy.policies import explain as explain
from perfusio_jax.bed.policy.policies import match_particles as match_particles
from perfusio_jax.bed.policy.preferences import Preferences as Preferences
from perfusio_jax.bed.policy.recipes import start_state as start_state
from perfusio_jax.bed.policy.recommend import recommend as recommend
from perfusio_jax.bed.surrogate.ensembles import EnsembleSurrogate as EnsembleSurrogate
from perfusio_jax.bed.surrogate.ensembles import ensemble as ensemble
from perfusio_jax.bed.surrogate.processes import ProcessSurrogate as ProcessSurrogate
from perfusio_jax.bed.surrogate.processes import gaussian_process as gaussian_process
from perfusio_jax.bed.surrogate.processes import gaussian_processes as gaussian_processes
from perfusio_jax.bed.surrogate.surrogates import GaussianSurrogate as GaussianSurrogate
from perfusio_jax.bed.surrogate.surrogates import RolloutSurrogate as RolloutSurrogate
from perfusio_jax.bed.surrogate.surrogates import Surrogate as Surrogate
