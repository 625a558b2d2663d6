"""`avel recipe VERB`, one file a verb."""
