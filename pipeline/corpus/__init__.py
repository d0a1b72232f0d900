"""Labelled videos and who is in them."""
