"""A run on videos that it has never seen, beside what it has to beat."""
