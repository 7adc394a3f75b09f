"""Floor 1: text in any shape → documents."""
