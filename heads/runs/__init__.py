"""Run folders: what is written of a training and read again."""
