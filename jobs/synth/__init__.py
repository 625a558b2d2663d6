"""`avel synth`: synthetic videos with exactly known events."""
