"""Media in, features out: probe, plan, decode, segment, encode, write.

Imports `catalog` only. It meets `heads` in the feature store, never in code.
"""
