"""Videos to work on: yours (see README.md), and a demo corpus made by `python -m data.demo`."""

import pipeline  # noqa: F401 - watches while a command is being loaded
