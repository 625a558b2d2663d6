"""The head `loco`."""
