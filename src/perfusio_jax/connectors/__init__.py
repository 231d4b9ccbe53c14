"""The outside world: files, databases, control systems, virtual vessels.

Loaded on first use, so that reading a CSV file does not import a database library.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
