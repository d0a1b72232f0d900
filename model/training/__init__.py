"""Sequences of embeddings, temporal heads, and the training loop."""
