"""Networks made sick on purpose, and healthy ones: what every check of trust is judged by.

`ZOO` holds the broken defences, each with a harmless control of the same construction; `HONEST` holds networks with
nothing to hide. Everything is trained on the digits in seconds, from a seed, once for each process.
"""

from tests.planted.zoo.bases import base, trained_with
from tests.planted.zoo.data import Digits, digits
from tests.planted.zoo.defences import ZOO
from tests.planted.zoo.honest import HONEST, Honest
from tests.planted.zoo.record import Defence

__all__ = ["HONEST", "ZOO", "Defence", "Digits", "Honest", "base", "digits", "trained_with"]
