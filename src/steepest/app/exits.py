"""Exit codes, and the one place where a failure becomes a line on the terminal."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from typing import ParamSpec

import typer

from steepest.basis.errors import SteepestError

OK, CRASH, USAGE, GATE_FAILED, UNBELIEVABLE, INCOMPLETE, INTERRUPTED = 0, 1, 2, 10, 11, 12, 130

CONTINUES = "the same command continues where it stopped"
NOTHING = "nothing was written"
"""What Ctrl-C leaves behind."""

P = ParamSpec("P")


def foreseen(interrupted: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Return a decorator that turns every failure of a command into a message on stderr and an exit code.

    A `SteepestError` is one line and its own code; Ctrl-C says `interrupted` and gives 130; anything else is a fault
    of ours or of the user's code: a line, the traceback, 1.
    """

    def guard(command: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(command)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                command(*args, **kwargs)
            except SteepestError as error:
                _say(f"error: {error}")
                raise typer.Exit(error.exit_code) from None
            except KeyboardInterrupt:
                _say(f"interrupted: {interrupted}.")
                raise typer.Exit(INTERRUPTED) from None
            except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
                raise
            except Exception as error:
                _say(f"error: unexpected {type(error).__name__}: {error}. No number was reported.")
                traceback.print_exc()
                raise typer.Exit(CRASH) from None

        return guarded

    return guard


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
