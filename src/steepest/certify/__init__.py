"""Guaranteed lower bounds; this room never sees an attack, so that the two sides are independent witnesses."""
