"""The tree of errors: what went wrong, what is allowed, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SteepestError(Exception):
    """Any failure that steepest foresees; `exit_code` is what the command line returns for it.

    >>> issubclass(UsageError, SteepestError), SteepestError.exit_code
    (True, 1)
    """

    exit_code: int = 1


class UsageError(SteepestError):
    """A request that cannot be served: names the value received, what is allowed and the remedy.

    >>> from steepest.budgets.linf import Linf
    >>> Linf(-0.1)
    Traceback (most recent call last):
    steepest.basis.errors.UsageError: Linf: ε = -0.1 is not allowed; ε must be finite and at least 0, in data ...
    """

    exit_code = 2


class DataError(SteepestError):
    """Data that cannot be read or does not fit the model, the box or the labels.

    >>> from steepest.audit.data import open_data
    >>> open_data("missing.npz")
    Traceback (most recent call last):
    steepest.basis.errors.DataError: ...missing.npz...
    """

    exit_code = 2


class ModelError(SteepestError):
    """A model file or module that cannot be loaded, or answers in a form that no objective understands.

    >>> from steepest.models.model import Model
    >>> Model(lambda x: x.sum()).logits(torch.zeros(2, 3))
    Traceback (most recent call last):
    steepest.basis.errors.ModelError: the model answered a tensor of shape () to an input of shape (2, 3); ...
    """

    exit_code = 2


class NoCertificateError(ModelError):
    """A model of which a certifier can say nothing: names the operation or the property that it met, and a remedy.

    >>> issubclass(NoCertificateError, ModelError)
    True
    """


class ContractError(SteepestError):
    """A component broke a law of its contract: names the component, the law and the rows.

    >>> ContractError.exit_code
    1
    """

    exit_code = 1


class IncompleteError(SteepestError):
    """A run that stopped before its end and can be resumed by the same command.

    >>> IncompleteError.exit_code
    12
    """

    exit_code = 12


def unknown(kind: str, received: str, allowed: Iterable[str], remedy: str = "") -> UsageError:
    """Return the error for a name that does not exist, with the nearest names that do.

    >>> str(unknown("budget", "linff", ["l1", "l2", "linf"]))
    "unknown budget 'linff'; did you mean 'linf'? Known: l1, l2, linf."
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(received, names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else "."
    return UsageError(f"unknown {kind} {received!r}{hint} Known: {', '.join(names)}.{' ' + remedy if remedy else ''}")
