"""Foreign feature formats, one file each, read and written."""
