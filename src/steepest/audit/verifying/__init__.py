"""Deciding properties of a network's outputs over boxes of inputs: attacks and bounds race for the answer."""
