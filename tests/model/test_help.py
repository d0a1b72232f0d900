"""What the commands say of themselves."""

import os
import subprocess
import sys

import pytest

EXPECTED = {
    "model.fit": (
        "  python -m model.fit caches/dfd-resnet18 -o runs/first --tune 20\n",
        ["Tuning:", "The head", "--tune N", "[default: 3", "--pooling [last|mean|attention]"],
    ),
    "model.evaluate": ("  python -m model.evaluate runs/first\n", ["--cache", "--json"]),
    "model.predict": (
        "  python -m model.predict runs/first some_video.mp4\n",
        ["--weights PATH", "--json", "[default: auto]"],
    ),
}


@pytest.fixture(scope="module")
def helps():
    """The help of every command, asked for all at once."""
    asked = {
        module: subprocess.Popen(
            [sys.executable, "-m", module, "--help"],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"COLUMNS": "100"},
        )
        for module in EXPECTED
    }
    return {
        module: (process.communicate()[0], process.returncode) for module, process in asked.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("module", EXPECTED)
def test_help_is_grouped_and_shows_defaults_and_an_example_as_it_is_typed(module, helps):
    text, code = helps[module]
    example, parts = EXPECTED[module]
    assert code == 0
    assert example in text
    for part in (f"Usage: python -m {module}", "Example:", "Exit codes:", "--debug", *parts):
        assert part in text
    assert max(map(len, text.splitlines())) <= 100
