"""Scores of point forecasts, probabilistic forecasts, Pareto sets and control."""

from .coverage import central_coverage as central_coverage
from .coverage import crps as crps
from .coverage import pi_coverage as pi_coverage
from .coverage import probability_integral_transform as probability_integral_transform
from .coverage import sharpness as sharpness
from .multiobjective import epsilon_indicator as epsilon_indicator
from .multiobjective import hypervolume as hypervolume
from .multiobjective import hypervolume_indicator as hypervolume_indicator
from .multiobjective import igd_plus as igd_plus
from .rrmse import normalisation_scale as normalisation_scale
from .rrmse import rrmse_horizon as rrmse_horizon
from .tracking import naae as naae
from .tracking import nauc as nauc
from .tracking import rank_sum as rank_sum
from .tracking import total_naae as total_naae
from .tracking import tracking_error as tracking_error
