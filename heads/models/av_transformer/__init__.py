"""The head `av_transformer`."""
