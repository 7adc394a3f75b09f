"""Verbs → functions."""
