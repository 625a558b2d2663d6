"""From samples and texts to what networks take."""
