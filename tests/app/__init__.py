"""Tests of the command line, its exit codes, resuming, and the page."""
