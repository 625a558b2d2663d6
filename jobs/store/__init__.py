"""`avel store VERB`, one file a verb."""
