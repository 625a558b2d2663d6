"""What exists and how it is kept: time grids, videos, events, recipes, data sets and the feature store.

The lowest floor: it imports no torch, no ray and no decoder, and nothing of `pipeline`, `heads` or `jobs`.
"""
