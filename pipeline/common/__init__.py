"""Shared by all stages: errors, files, commands, progress, pages."""
