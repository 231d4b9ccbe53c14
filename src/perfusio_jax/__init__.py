"""Self-driving development of perfusion cell culture, and the JAX library under it.

Everything here is loaded on first use (the list is `__init__.pyi`): `import perfusio_jax` itself
reads no heavy library and changes no JAX setting.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
