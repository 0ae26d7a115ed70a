"""`python -m steepest` is the command line."""

from __future__ import annotations

from steepest.app.cli import main

if __name__ == "__main__":
    main()
