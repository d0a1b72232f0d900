"""The names that packages offer, and what importing them costs."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

PACKAGES = (
    "pipeline",
    "features",
    "model",
    "model.evaluation",
    "model.reports",
    "model.prediction",
)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_offers_what_its_modules_have(name):
    package = importlib.import_module(name)
    for offered in package.__all__:
        found = getattr(package, offered)
        assert getattr(sys.modules[found.__module__], offered) is found
        assert found.__module__.startswith(f"{name}.")


@pytest.mark.parametrize("name", PACKAGES)
def test_no_name_is_hidden_by_a_module(name):
    package = importlib.import_module(name)
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert modules.isdisjoint(package.__all__)


def test_a_name_that_is_not_there_is_an_error():
    with pytest.raises(ImportError, match="frobnicate"):
        from pipeline import frobnicate  # noqa: F401
    with pytest.raises(AttributeError, match="'model' has no attribute 'frobnicate'"):
        importlib.import_module("model").frobnicate  # noqa: B018


def test_nothing_is_imported_that_is_not_needed():
    code = """
import sys, pipeline.extract, pipeline.workers.local, features, model
import features.embed, model.fit, model.evaluate, model.predict
print(*sys.modules.keys() & {"torch", "torchvision", "sklearn", "skopt", "matplotlib"})
import model.prediction.batch
print(*sys.modules.keys() & {"sklearn", "scipy.stats", "skopt", "matplotlib"})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
