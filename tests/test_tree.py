"""Which package may use which: each works without those that come after it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"pipeline", "features", "model", "data", "benchmarks", "tests"}
MAY_USE = {"pipeline": set(), "features": {"pipeline"}, "model": {"pipeline", "features"}}


def imported(path):
    """The packages that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports name the package"
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", MAY_USE)
def test_a_package_uses_only_those_before_it(package):
    used = {path: OURS.intersection(imported(path)) for path in (ROOT / package).rglob("*.py")}
    assert len(used) > 5
    allowed = MAY_USE[package] | {package}
    assert not {str(path): names - allowed for path, names in used.items() if names - allowed}
