"""`avel train`."""
