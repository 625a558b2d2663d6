"""What a person runs: `avel VERB`, one file a verb."""
