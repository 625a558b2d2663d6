"""`avel report`: one HTML file of a run, without outside references."""
