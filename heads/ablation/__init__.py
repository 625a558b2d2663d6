"""Tables of ablations and what they measure."""
