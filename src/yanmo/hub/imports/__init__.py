"""From other tools."""
