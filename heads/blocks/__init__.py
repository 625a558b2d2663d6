"""Parts that heads share, one a file."""
