"""Made-up scenes to render, and made-up features with known events."""
