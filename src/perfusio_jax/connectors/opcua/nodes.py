"""The node map: which node of a server is which species, tag or control."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from asyncua import ua

from perfusio_jax._core import STREAM_TOTALS, ConfigError, DataError
from perfusio_jax._core.limits import read_toml
from perfusio_jax.connectors.opcua.names import (
    EXTRA,
    NAMESPACES,
    SPECIAL,
    BrowsePath,
    parse_path,
)
from perfusio_jax.connectors.tables.vocabulary import Vocabulary
from perfusio_jax.process import Process

# The protocol library re-exports its types by wildcards and declares numbers as subclasses.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false


@dataclass(frozen=True, slots=True)
class NodeRef:
    """One node, in a form that outlives a restart of the server where that can be had."""

    name: str
    """Species, tag, stream total, control or special key."""
    text: str
    """As it was given."""
    path: BrowsePath | None = None
    """Browse path, or else ..."""
    node: ua.NodeId | None = None
    """... node id, whose namespace index is only right if `uri` is None, or else ..."""
    uri: str | None = None
    """... the URI of its namespace."""
    unit: str | None = None
    """Unit of the node's values, if the map says."""
    is_sure: bool = False
    """Whether that unit counts even where the node states another one."""


def _node_ref(name: str, given: Any, namespaces: Mapping[str, str]) -> NodeRef:
    if isinstance(given, Mapping):
        extra = sorted(set(given) - {"node", "unit", "sure"})
        if extra or "node" not in given:
            raise ConfigError(
                f"node map: {name} must be a text or {{node = ..., unit = ...}}; given {given}."
            )
        text, unit, is_sure = given["node"], given.get("unit"), given.get("sure", False)
        if not isinstance(is_sure, bool) or (is_sure and unit is None):
            raise ConfigError(
                f"node map: sure = {is_sure!r} of {name}; true or false, and beside a `unit`."
            )
        if unit is not None and (not isinstance(unit, str) or not unit.strip()):
            raise ConfigError(f"node map: unit = {unit!r} of {name}; a unit in quotes is needed.")
    else:
        text, unit, is_sure = given, None, False
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"node map: {name} is {text!r}; a node id or browse path is needed.")
    text = text.strip()
    if text.startswith("/"):
        return NodeRef(name, text, path=parse_path(text, namespaces), unit=unit, is_sure=is_sure)
    uri = None
    if text.startswith("nsu="):
        uri, _, rest = text[4:].partition(";")
        local = rest
    else:
        local = text
    try:
        node = ua.NodeId.from_string(local)
    except (ua.UaError, ValueError) as error:
        raise ConfigError(
            f"node map: {name} is {text!r}; allowed are a node id (ns=2;s=VCD), one with the "
            "URI of its namespace (nsu=urn:site;s=VCD) or a browse path (/di:DeviceSet/...)."
        ) from error
    return NodeRef(name, text, node=node, uri=uri, unit=unit, is_sure=is_sure)


class NodeMap(Mapping[str, NodeRef]):
    """Nodes by the name they have here.

    Args:
        nodes: Node id or browse path, or `{node, unit}`, by species, tag, total, control or
            one of `sample_day`, `sample_time_h`, `heartbeat` and `configuration_version`; names
            that begin with `x_` are streamed and recorded, and mean nothing to the twin. `sure`
            beside `unit` lets it count where the node itself states another one.
        namespaces: URI by short name, beside ua, di, lads and rack.
        process: The culture, where it is another than CHO perfusion: names are its, and values
            are wanted in its units.

    Raises:
        ConfigError: If a name is unknown, a node cannot be understood or two names share one.
    """

    def __init__(
        self,
        nodes: Mapping[str, Any],
        namespaces: Mapping[str, str] | None = None,
        *,
        process: Process | None = None,
    ) -> None:
        self.process = process
        self.words = Vocabulary.of(process)
        if not nodes:
            raise ConfigError("the node map is empty; it needs at least one species or control.")
        known = {**NAMESPACES, **(namespaces or {})}
        words = self.words
        mine = (*words.species, *STREAM_TOTALS, *words.tags, "volume_L", *words.controls)
        allowed = dict.fromkeys((*mine, *SPECIAL))
        unknown = [n for n in nodes if n not in allowed and not n.startswith(EXTRA)]
        if unknown:
            whose = f" of {words.process}" if words.process else ""
            raise ConfigError(
                f"node map: {', '.join(unknown)} is no species, tag, control or special key{whose};"
                f" allowed are {', '.join(allowed)}, and names that begin with {EXTRA}."
            )
        self._refs = {name: _node_ref(name, given, known) for name, given in nodes.items()}
        seen: dict[str, str] = {}
        for ref in self._refs.values():
            where = str(ref.path) if ref.path is not None else ref.text
            if where in seen:
                raise ConfigError(f"node map: {seen[where]} and {ref.name} are both {ref.text}.")
            seen[where] = ref.name

    def __getitem__(self, name: str) -> NodeRef:
        return self._refs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)

    @property
    def controls(self) -> tuple[str, ...]:
        """Controls it holds, in the order of the culture."""
        return tuple(name for name in self.words.controls if name in self._refs)

    @property
    def grouped(self) -> tuple[str, ...]:
        """What may belong to a sample, whoever serves it."""
        if self.process is None:
            return (*self.words.species, *STREAM_TOTALS)
        totals = [s.total for s in self.process.streams if s.total]
        volume = () if self.process.is_constant_volume else ("volume_L",)
        return tuple(dict.fromkeys((*self.words.species, *STREAM_TOTALS, *totals, *volume)))

    @classmethod
    def load(
        cls, path: Path | str, *, reactor_id: str | None = None, process: Process | None = None
    ) -> "NodeMap":
        """A node map from a TOML file with tables `[nodes]` and, if needed, `[namespaces]`.

        `{reactor_id}` in a node stands for the vessel, so that one file serves a whole rack.

        Args:
            path: The file.
            reactor_id: Vessel.
            process: The culture, where it is another than CHO perfusion.

        Raises:
            ConfigError: If it cannot be read or understood, or names no vessel where one is
                needed.
        """
        try:
            content = read_toml(path)
        except OSError as error:
            raise ConfigError(f"node map {path} cannot be read: {error.strerror}.") from error
        except ConfigError as error:
            raise ConfigError(f"node map {error}.") from None
        extra = sorted(set(content) - {"nodes", "namespaces"})
        if extra:
            raise ConfigError(
                f"node map {path} has {', '.join(extra)}; allowed are the tables [nodes] and "
                "[namespaces]. Passwords belong into the environment."
            )
        nodes = content.get("nodes", {})
        return cls(
            {name: _filled(given, reactor_id, path) for name, given in nodes.items()},
            content.get("namespaces"),
            process=process,
        )


def _filled(given: Any, reactor_id: str | None, path: Path | str) -> Any:
    if isinstance(given, Mapping):
        return {key: _filled(value, reactor_id, path) for key, value in given.items()}
    if not isinstance(given, str) or "{reactor_id}" not in given:
        return given
    if reactor_id is None:
        raise ConfigError(f"node map {path} is for many vessels; say which with reactor_id.")
    return given.replace("{reactor_id}", reactor_id)


INTEGERS: Final = {
    ua.VariantType.SByte: (-(2**7), 2**7 - 1),
    ua.VariantType.Byte: (0, 2**8 - 1),
    ua.VariantType.Int16: (-(2**15), 2**15 - 1),
    ua.VariantType.UInt16: (0, 2**16 - 1),
    ua.VariantType.Int32: (-(2**31), 2**31 - 1),
    ua.VariantType.UInt32: (0, 2**32 - 1),
    ua.VariantType.Int64: (-(2**63), 2**63 - 1),
    ua.VariantType.UInt64: (0, 2**64 - 1),
}
"""Whole numbers a node may hold, by type."""


def typed(name: str, value: float, kind: ua.VariantType) -> ua.Variant:
    """A set-point in the type its node has.

    Args:
        name: Control, for the message.
        value: In the node's unit.
        kind: Type of the node.

    Raises:
        DataError: If the type is no number, or cannot hold the value exactly enough.
    """
    if kind in (ua.VariantType.Double, ua.VariantType.Float):
        if kind is ua.VariantType.Float and abs(value) > 3.4e38:
            raise DataError(f"{name}: {value!r} does not fit a 32-bit number.")
        return ua.Variant(float(value), kind)
    if kind not in INTEGERS:
        raise DataError(f"{name}: its node holds {kind.name}, not a number.")
    low, high = INTEGERS[kind]
    if value != round(value) or not low <= value <= high:
        raise DataError(
            f"{name}: its node holds whole numbers from {low} to {high}; {value!r} is none."
        )
    return ua.Variant(round(value), kind)
