"""What each package offers to whoever imports it: the right thing, at no cost before it is used."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("name", PACKAGES)
def test_type_checkers_see_the_same_names(name):
    package = importlib.import_module(name)
    for_checkers = {
        alias.asname: node.module
        for block in ast.parse(Path(package.__file__).read_text()).body
        if isinstance(block, ast.If)
        for node in block.body
        for alias in node.names
    }
    assert for_checkers == package._HOMES


def test_a_name_that_is_not_there_is_an_error():
    with pytest.raises(ImportError, match="frobnicate"):
        from pipeline import frobnicate  # noqa: F401
    with pytest.raises(AttributeError, match="'model' has no attribute 'frobnicate'"):
        importlib.import_module("model").frobnicate  # noqa: B018


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        (",".join(PACKAGES), ("numpy", "cv2", "h5py", "av", "click", "torch")),
        ("pipeline.workers.local", ("numpy", "cv2", "h5py", "av", "click", "torch")),
        ("pipeline.extract", ("torch", "sklearn", "matplotlib")),
        (
            "features.embed, model.fit, model.evaluate, model.predict",
            ("torch", "torchvision", "sklearn", "skopt", "matplotlib"),
        ),
        ("model.prediction.batch", ("sklearn", "scipy.stats", "skopt", "matplotlib")),
    ],
)
def test_nothing_is_imported_that_is_not_needed(module, spared):
    code = f"import sys, {module}; print(*sys.modules.keys() & {set(spared)})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
