"""Level 2: the handle around a network, objectives and goals, loading and inspecting model files."""
