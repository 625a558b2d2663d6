"""The head `tri_det`."""
