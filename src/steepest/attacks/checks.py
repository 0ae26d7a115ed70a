"""What parameters may be: each check names the attack, the parameter, its value, what is allowed.

A search that several attacks share says "" for the attack: the catalogue names the attack that was asked for.
"""

from __future__ import annotations

import math

from steepest.basis.errors import UsageError


def refused(attack: str, name: str, given: object, remedy: str) -> UsageError:
    """Return the error that a parameter's value is not allowed.

    >>> str(refused("cw", "lr", 0, "give a positive finite number"))
    'cw: lr=0 is not allowed; give a positive finite number.'
    """
    return UsageError(f"{attack}{': ' if attack else ''}{name}={given!r} is not allowed; {remedy}.")


def whole(attack: str, name: str, given: object, least: int, note: str = "") -> None:
    """Refuse what is no whole number of at least `least`; `note` says more of the limit.

    Raises:
        UsageError: see `refused`.
    """
    if not isinstance(given, int) or isinstance(given, bool) or given < least:
        raise refused(attack, name, given, f"give a whole number of at least {least}{note}")


def between(attack: str, name: str, given: float, low: float, high: float = math.inf) -> None:
    """Refuse a number outside [low, high], an infinite one, or NaN.

    Raises:
        UsageError: see `refused`.
    """
    if not low <= given <= high or math.isinf(given):
        allowed = f"from {low:g} to {high:g}" if high < math.inf else f"of at least {low:g}"
        raise refused(attack, name, given, f"give a finite number {allowed}")


def positive(attack: str, name: str, given: float, remedy: str = "give a positive finite number") -> None:
    """Refuse a number that is not positive and finite.

    Raises:
        UsageError: see `refused`.
    """
    if not 0 < given < math.inf:
        raise refused(attack, name, given, remedy)


def share(attack: str, name: str, given: float, remedy: str) -> None:
    """Refuse a number that is not strictly between 0 and 1.

    Raises:
        UsageError: see `refused`.
    """
    if not 0 < given < 1:
        raise refused(attack, name, given, remedy)
