"""Level 1: sets of allowed perturbations, and the region that a budget opens around x inside the box."""
