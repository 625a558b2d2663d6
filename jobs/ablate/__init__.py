"""`avel ablate`: the verb, what it trains, the results of its runs, and a table's figure."""
