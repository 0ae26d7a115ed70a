"""Level 0: errors, tensors, the box, random streams, the catalogue, progress. Imports nothing of ours."""
