"""Generator of the demo corpus; README.md describes your own videos."""

import pipeline  # noqa: F401 - handles Ctrl-C while a command loads
