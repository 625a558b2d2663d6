"""Encoders, one file each: spec, presets, preprocessing and network."""
