"""The head `ov_avel`."""
