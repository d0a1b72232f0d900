"""A run on changed copies of its unseen videos."""
