"""From a cache of embeddings to a trained temporal head, its evaluation and predictions."""

import pipeline  # noqa: F401 - watches while a command is being loaded
