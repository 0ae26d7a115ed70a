"""Level 3: what a loss looks like around a point: gradients, linearity, curvature, remainders, layers, slices."""
