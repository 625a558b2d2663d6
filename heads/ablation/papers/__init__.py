"""Tables of ablations, one file a paper; see `heads.ablation.table`."""
