"""Media to clips: the clock, the packets, frames and samples. Imported by the sandbox's child alone."""
