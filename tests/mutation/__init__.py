"""A broken attack must turn the laws red."""
