"""``python -m yanmo``."""

from yanmo.cli.app import main

if __name__ == "__main__":
    main()
