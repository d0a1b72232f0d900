"""Names that a package offers before anything that they need is imported.

Commands and the processes they start import their package first: none of them may pay for what
another one needs.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazily(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package that imports a name's module when the name is asked for.

    Args:
        package: its ``__name__``.
        homes: name → the module that it is from.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return get
