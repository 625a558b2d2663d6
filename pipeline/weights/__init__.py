"""Checkpoints and vocabularies: what is needed, where it lies, how it is fetched."""
