"""Figures. Matplotlib is imported when the first one is drawn."""

import importlib
from typing import TYPE_CHECKING, Any

_FACES = {
    "LABELS": "theme",
    "PALETTE": "theme",
    "closed_loop_figure": "static",
    "calibration_figure": "validation",
    "parity_figure": "validation",
    "fig4_training_trajectories": "static",
    "fig6_model_predictions": "static",
    "fig7_pareto_front": "static",
    "fig8_closed_loop_performance": "static",
    "save_figure": "theme",
    "tracking_error_figure": "static",
}

if TYPE_CHECKING:
    from .static import closed_loop_figure as closed_loop_figure
    from .static import fig4_training_trajectories as fig4_training_trajectories
    from .static import fig6_model_predictions as fig6_model_predictions
    from .static import fig7_pareto_front as fig7_pareto_front
    from .static import fig8_closed_loop_performance as fig8_closed_loop_performance
    from .static import tracking_error_figure as tracking_error_figure
    from .theme import LABELS as LABELS
    from .theme import PALETTE as PALETTE
    from .theme import save_figure as save_figure
    from .validation import calibration_figure as calibration_figure
    from .validation import parity_figure as parity_figure


def __getattr__(name: str) -> Any:
    if name not in _FACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_FACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_FACES})
