"""`avel evaluate`."""
