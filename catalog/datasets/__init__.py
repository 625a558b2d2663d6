"""Data sets, one file each: `load(root)` reads the official annotation files as they are."""
