"""Labelled videos and who is in them, from folders and CSV files."""
