"""Floor 1: every setting, recipes, and the constraints between settings."""
