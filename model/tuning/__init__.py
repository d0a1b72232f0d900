"""Tuning: the search space, trials, the search over them, and its plots."""
