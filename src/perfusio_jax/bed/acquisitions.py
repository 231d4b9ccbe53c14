"""Acquisitions by name; `bed/acquisition` holds them."""

from perfusio_jax.bed.acquisition.acquisitions import ACQUISITION_NAMES as ACQUISITION_NAMES
from perfusio_jax.bed.acquisition.acquisitions import OWN_ACQUISITIONS as OWN_ACQUISITIONS
from perfusio_jax.bed.acquisition.acquisitions import Acquisition as Acquisition
from perfusio_jax.bed.acquisition.acquisitions import FallbackWarning as FallbackWarning
from perfusio_jax.bed.acquisition.acquisitions import build_acquisition as build_acquisition
from perfusio_jax.bed.acquisition.acquisitions import incumbent_value as incumbent_value
