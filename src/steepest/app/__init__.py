"""Level 7: the command line and its configuration; the only room that prints."""
