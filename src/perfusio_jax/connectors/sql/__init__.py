"""A database as a source and an archive: schema, versions, rows, the store."""
