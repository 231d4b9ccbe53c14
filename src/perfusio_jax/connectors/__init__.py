"""The outside world: files, databases, control systems, virtual vessels.

Loaded on first use, so that reading a CSV file does not import a database library.
"""

import importlib
from typing import TYPE_CHECKING, Any

_FACES = {
    "Ambr250Emulator": "ambr250_emulator",
    "OPCUAConnector": "opcua.client",
    "RackServer": "opcua.server",
    "ReplayConnector": "opcua.records",
    "make_certificates": "opcua.security",
    "rack_node_map": "opcua.names",
    "BioreactorConnectorBase": "base",
    "FilesystemStore": "files.filesystem",
    "Campaign": "files.frames",
    "FrameReport": "files.frame_report",
    "ReadReport": "tables.report",
    "Reading": "base",
    "SQLStore": "sql.store",
    "SampleNotReady": "base",
    "SampleRecord": "base",
    "campaign_from_frame": "files.frames",
    "campaign_to_frame": "files.frames",
    "check_setpoints": "base",
    "read_campaign": "files.campaign_files",
    "write_campaign": "files.campaign_files",
}

if TYPE_CHECKING:
    from perfusio_jax.connectors.ambr250_emulator import Ambr250Emulator as Ambr250Emulator
    from perfusio_jax.connectors.base import BioreactorConnectorBase as BioreactorConnectorBase
    from perfusio_jax.connectors.base import Reading as Reading
    from perfusio_jax.connectors.base import SampleNotReady as SampleNotReady
    from perfusio_jax.connectors.base import SampleRecord as SampleRecord
    from perfusio_jax.connectors.base import check_setpoints as check_setpoints
    from perfusio_jax.connectors.files.campaign_files import read_campaign as read_campaign
    from perfusio_jax.connectors.files.campaign_files import write_campaign as write_campaign
    from perfusio_jax.connectors.files.filesystem import FilesystemStore as FilesystemStore
    from perfusio_jax.connectors.files.frame_report import FrameReport as FrameReport
    from perfusio_jax.connectors.files.frames import Campaign as Campaign
    from perfusio_jax.connectors.files.frames import campaign_from_frame as campaign_from_frame
    from perfusio_jax.connectors.files.frames import campaign_to_frame as campaign_to_frame
    from perfusio_jax.connectors.opcua.client import OPCUAConnector as OPCUAConnector
    from perfusio_jax.connectors.opcua.names import rack_node_map as rack_node_map
    from perfusio_jax.connectors.opcua.records import ReplayConnector as ReplayConnector
    from perfusio_jax.connectors.opcua.security import make_certificates as make_certificates
    from perfusio_jax.connectors.opcua.server import RackServer as RackServer
    from perfusio_jax.connectors.sql.store import SQLStore as SQLStore
    from perfusio_jax.connectors.tables.report import ReadReport as ReadReport


def __getattr__(name: str) -> Any:
    if name not in _FACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_FACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_FACES})
