"""Training on worst-case points: methods, the alarm that says when they stop being true, and their bias."""
