"""Features in, predictions out: reading splits, heads, losses, training, metrics.

Imports `catalog` only; it needs no video, no checkpoint of an encoder and no GPU.
"""
