"""Level 3: problems, searches, the one loop, named recipes; the curve and the worst case of any function."""
