"""The encoder `imagebind`."""
