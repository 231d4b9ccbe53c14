"""Control systems over OPC UA: nodes and values, the client, a server for the virtual rack."""
