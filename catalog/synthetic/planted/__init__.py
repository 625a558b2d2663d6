"""Planted benchmarks: one file each, named as its protocol is; found and told of in `catalog/synthetic/planting.py`."""
