"""Choosing settings: what there is to choose from, how trials run, and how the search went."""
