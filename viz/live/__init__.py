"""Live views of a cluster."""
