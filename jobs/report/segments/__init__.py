"""Report parts of heads that score segments."""
