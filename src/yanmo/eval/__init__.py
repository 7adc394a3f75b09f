"""What a loss means: bits per character, and the lines beside it."""
