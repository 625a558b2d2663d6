"""The head `psp`."""
