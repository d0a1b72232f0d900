"""Process pools: on this machine, and on a Ray cluster."""
