"""Mechanisms by what a person says of them: a plain one, none, or a class in a file of theirs."""

import importlib
import sys
from pathlib import Path

from perfusio_jax._core import ConfigError
from perfusio_jax.hybrid import NAMED
from perfusio_jax.mechanistic import ConsortiumKinetics, Mechanism, cho_cells
from perfusio_jax.process import CHO_FED_BATCH, CONSORTIUM, Process

SBML_SUFFIXES = (".xml", ".sbml")
"""Endings of files that hold a mechanism as SBML."""


def named_mechanism(text: str | None) -> str | Mechanism | None:
    """A mechanism by what a person says of it.

    Args:
        text: `monod`, `none`, `cho`, `module:Class`, or a file of SBML; the module may lie in the
            present folder.

    Raises:
        ConfigError: If there is no such class, or it is no mechanism.
        DataError: If the file is no SBML, or has something that cannot be taken.
    """
    if text is None or text in NAMED:
        return text
    if Path(text).suffix.lower() in SBML_SUFFIXES:
        from perfusio_jax.exchange import read_sbml

        return read_sbml(Path(text)).mechanism
    module, _, name = text.partition(":")
    if not name:
        raise ConfigError(
            f"mechanism {text!r} is unknown; allowed are {', '.join(NAMED)}, module:Class and "
            f"a file of SBML ({' or '.join(SBML_SUFFIXES)})."
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"mechanism {text}: {error}.") from None
    try:
        made = found() if isinstance(found, type) else found
    except TypeError as error:
        raise ConfigError(
            f"mechanism {text} cannot be made as it stands ({error}). Give each of its constants a "
            "value where it is declared, or name one that is made already."
        ) from None
    if not isinstance(made, Mechanism):
        raise ConfigError(
            f"mechanism {text} is a {type(made).__name__}; it has to be a Mechanism of "
            "perfusio_jax.mechanistic."
        )
    return made


def plant_mechanism(process: Process, text: str | None) -> Mechanism:
    """The mechanism of a virtual plant: `monod`, `cho`, `module:Class`; its own where it has one.

    Args:
        process: The culture.
        text: What a person says of it; by default a built-in culture's own, else `monod`.

    Raises:
        ConfigError: If there is none of that name, or it moves nothing.
    """
    from perfusio_jax.simulator import plain_monod

    if text is None and process == CONSORTIUM:
        return ConsortiumKinetics()
    if text == "cho" or (text is None and process == CHO_FED_BATCH):
        return cho_cells(process)
    if text is None or text == "monod":
        return plain_monod(process)
    found = named_mechanism(text)
    if not isinstance(found, Mechanism):
        raise ConfigError(f"mechanism {text} moves nothing; monod, cho, module:Class and SBML do.")
    return found
