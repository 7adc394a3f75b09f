"""Floor 3: the model families."""
