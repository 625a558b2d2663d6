"""Events with a start and an end of their own: pyramid, targets, losses, decoding."""
