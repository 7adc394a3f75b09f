"""Past one machine: the same road as ``clean --dedup`` and ``prepare``, as tasks of a datatrove pipeline."""
