"""The speed and memory that this project promises, measured as ratios within one run: `python -m benchmarks`."""
