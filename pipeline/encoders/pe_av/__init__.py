"""The encoder `pe_av`."""
