"""What the project promises about speed and memory, measured: one file a promise. `avel bench` runs them.

Each file has `ABOUT` and `measure(folder) -> list[Measurement]`. The two sides of a ratio are measured in one run,
taking turns, so that a busy machine slows both.
"""
