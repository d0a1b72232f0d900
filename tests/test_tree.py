"""Imports run one way: a folder uses only those above it in `ORDER`, and no modules in a circle."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ORDER = [
    "pipeline/common",
    "pipeline/farneback",
    "pipeline/corpus",
    "pipeline/splits",
    "pipeline/video",
    "pipeline/faces",
    "pipeline/cache",
    "pipeline/settings.py",
    "pipeline/workers",
    "pipeline/extraction",
    "pipeline/viewing",
    "pipeline/own_fakes",
    "pipeline",  # the commands
    "features",
    "model/settings.py",
    "model/statistics",
    "model/training",
    "model/run",
    "model/cli_options.py",
    "model/tuning",
    "model/explanation",
    "model/fitting.py",
    "model/evaluation",
    "model/prediction",
    "model/robustness",
    "model/reports",
    "model",
    "data",
    "benchmarks",
]
FILES = [
    path.relative_to(ROOT)
    for package in ("pipeline", "features", "model", "data", "benchmarks")
    for path in sorted((ROOT / package).rglob("*.py"))
]
MODULES = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
FACES = {Path("pipeline/__init__.py"), Path("features/__init__.py"), Path("model/__init__.py")}


def place(path):
    """The position of a file's folder in `ORDER`."""
    for part in (path, *path.parents):
        if str(part) in ORDER:
            return ORDER.index(str(part))
    raise AssertionError(f"{path} is in no folder of the order")


@cache
def imported(path):
    """The files of the project that a file imports, except for type checkers."""
    return tuple(_imported(path))


def _imported(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    for_checkers = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in for_checkers:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports name the package"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in names]
        else:
            continue
        yield from (MODULES[name] for name in names if name in MODULES)


def test_every_folder_of_the_order_is_there():
    assert len(FILES) > 100
    assert {place(path) for path in FILES} == set(range(len(ORDER)))


def test_a_file_uses_only_folders_above_its_own():
    wrong = [
        f"{path} uses {used}"
        for path in FILES
        if path not in FACES
        for used in imported(path)
        if place(used) > place(path)
    ]
    assert not wrong


def test_no_modules_import_each_other_in_a_circle():
    graph = {path: set(imported(path)) - FACES for path in FILES if path not in FACES}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(graph)
