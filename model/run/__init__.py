"""The run folder: weights, settings, predictions, and what a verdict rests on."""
