"""Planted benchmarks: one file each, named as its protocol is; found by `catalog/synthetic/planting.py`."""
