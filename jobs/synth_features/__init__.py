"""`avel synth-features`: a store of planted features."""
