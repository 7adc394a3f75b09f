"""Floor 0: errors, the console, storage that is whole or nothing, signals, worker processes."""
