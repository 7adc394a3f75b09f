"""Ranks, devices and how they are launched."""
