"""Any file → ``Document``."""
