"""Extraction of videos into caches of frames and flow maps."""

from pipeline.extraction.extract_corpus import extract

__all__ = ["extract"]
