"""`avel weights VERB`, one file a verb."""
