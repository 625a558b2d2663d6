"""Report parts of heads that find events."""
