"""`avel predict`."""
