"""Sequences of embeddings, temporal heads and their training."""
