"""Cleaning: rules, each text → text or :class:`Dropped`; ``rules.py`` is the list of them."""
