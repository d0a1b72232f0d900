"""What the commands say of themselves."""

import pytest

EXPECTED = {
    "model.fit": (
        "  python -m model.fit caches/dfd-resnet18 -o runs/first --tune 20\n",
        [
            "Tuning:",
            "The head",
            "--tune N",
            "[default: 3",
            "--pooling [last|mean|attention|statistics]",
        ],
    ),
    "model.evaluate": ("  python -m model.evaluate runs/first\n", ["--cache", "--json"]),
    "model.predict": (
        "  python -m model.predict runs/first some_video.mp4\n",
        ["--weights PATH", "--json", "[default: auto]"],
    ),
}


@pytest.mark.parametrize("module", EXPECTED)
def test_help_is_grouped_and_shows_defaults_and_an_example_as_it_is_typed(
    module, run_as_main, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "100")
    code, text = run_as_main(module, "--help")
    example, parts = EXPECTED[module]
    assert code == 0
    assert example in text
    for part in (f"Usage: python -m {module}", "Example:", "Exit codes:", "--debug", *parts):
        assert part in text
    assert max(map(len, text.splitlines())) <= 100
