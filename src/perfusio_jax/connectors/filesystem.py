"""Files as a connector; `connectors/files` holds them."""

from perfusio_jax.connectors.files.filesystem import FilesystemStore as FilesystemStore
