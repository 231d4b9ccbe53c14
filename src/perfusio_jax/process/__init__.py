"""A culture as a value: what it consists of, what is set, what flows; built in or from a file.

Loaded on first use, so that who reads or writes a description does not wait for JAX.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
