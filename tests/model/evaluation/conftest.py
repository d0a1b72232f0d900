"""What the tests of evaluations share."""

import pytest

import model.run.plots
import model.statistics.metrics


@pytest.fixture
def numbers_only(monkeypatch):
    """Draw no curves and resample less: most tests look at neither curves nor intervals."""
    monkeypatch.setattr(model.run.plots, "save_figure", lambda *_: None)
    monkeypatch.setattr(model.statistics.metrics, "RESAMPLES", 100)
