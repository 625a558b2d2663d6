"""`avel ablate`: the verb, what it trains, what its runs come to, and the picture of a table."""
