"""Pools of processes that run tasks, on this machine and on a Ray cluster."""
