"""Closed forms: what is known exactly must come out exactly."""
