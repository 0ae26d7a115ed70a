from dataclasses import dataclass


class Honest:
    pass


HONEST = {}
