"""Exchange: models as SBML, problems of calibration as PEtab, functions as programs of their own.

Names are loaded on first use (the list is `__init__.pyi`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
