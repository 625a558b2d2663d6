"""The encoder `one_peace`."""
