"""The encoder `clip_clap`."""
