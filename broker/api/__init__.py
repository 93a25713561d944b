"""The control plane: the token endpoint, the documents that describe it, health and metrics."""
