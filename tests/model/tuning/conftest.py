"""Searches that are over soon."""

import pytest

from model.tuning import search as search_module


@pytest.fixture(autouse=True)
def _few_random_points(monkeypatch):
    monkeypatch.setattr(search_module, "N_INITIAL", 2)  # so that the Gaussian process has its say
