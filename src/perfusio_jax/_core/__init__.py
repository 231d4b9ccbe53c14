"""Foundations: names, errors, result codes, precision, constrained parameters, units.

Loaded on first use (the list is `__init__.pyi`), so that what needs only names and errors does
not wait for JAX.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
