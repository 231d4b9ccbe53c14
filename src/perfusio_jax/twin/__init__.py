"""The twin: a pure decision and a pure gate, with everything effectful around them.

Four wings, each above the last: `decision`, `records`, `alarms`, `loop`. Names are loaded on first
use (the list is `__init__.pyi`), so that a connector that writes a file does not import a model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
