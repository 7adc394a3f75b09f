"""The corpus doctor."""
