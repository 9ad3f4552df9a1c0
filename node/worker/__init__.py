"""The tiny HTTP server around `node.workflow` that runs in a tenant's container."""
