"""What a glucose feed gives, unless somebody says otherwise: needed with JAX and without."""

from typing import Final

GLUCOSE_FEED: Final = 400.0
"""Glucose of the concentrated feed [g/L]."""

LARGEST_FLUX: Final = 0.5
"""Most glucose a pump gives per reactor volume [g/L/h]."""
