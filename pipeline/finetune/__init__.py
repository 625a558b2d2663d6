"""Contrastive fine-tuning of an encoder."""
