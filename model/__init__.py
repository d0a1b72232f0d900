"""From a cache of embeddings to a trained temporal head, its evaluation and predictions."""
