"""The plant: kinetics, vector field, integrators and the model built from them.

Names are loaded on first use (the list is `__init__.pyi`): a model does not wait for
diffrax.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
