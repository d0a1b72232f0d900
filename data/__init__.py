"""Videos to work on: yours (see README.md), and a demo corpus made by `python -m data.demo`."""
