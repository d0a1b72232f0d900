"""Explanations of verdicts: unusual motion, and where and when a verdict comes from."""
