"""An OPC UA client as a connector; `connectors/opcua` holds it."""

from perfusio_jax.connectors.opcua.client import OPCUAConnector as OPCUAConnector
