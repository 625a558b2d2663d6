"""Networks, one file each, with the published state-dict keys."""
