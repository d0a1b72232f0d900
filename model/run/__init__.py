"""A run on disk: model, configuration, training videos, predictions and plots."""
