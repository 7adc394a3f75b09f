"""To other tools."""
