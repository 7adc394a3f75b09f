"""Floors 4-6: from a prepared text to checkpoints."""
