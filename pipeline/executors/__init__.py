"""Who runs work units: this process or Ray."""
