"""`avel ablate`: the verb, what its runs come to, and the picture of a table."""
