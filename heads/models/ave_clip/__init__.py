"""The head `ave_clip`."""
