"""Features of a split, on the device, with their targets."""
