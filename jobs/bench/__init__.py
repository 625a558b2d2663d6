"""`avel bench`: speed and memory, measured."""
