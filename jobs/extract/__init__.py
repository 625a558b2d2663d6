"""`avel extract`: media in, a feature store out."""
