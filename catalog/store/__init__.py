"""The store: its format, its reader, its writer and what checks it."""
