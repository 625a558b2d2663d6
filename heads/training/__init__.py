"""The training loop and what a head is trained to do."""
