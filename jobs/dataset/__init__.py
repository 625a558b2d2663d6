"""`avel dataset VERB`, one file a verb."""
