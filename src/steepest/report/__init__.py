"""Level 6: records → page, as pure functions."""
