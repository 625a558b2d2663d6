"""The head `unav`."""
