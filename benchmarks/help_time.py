"""Seconds of ``yanmo --help`` and of a bare interpreter, interleaved: median (least - most)."""

import statistics
import subprocess
import sys
import time

import turns

COMMANDS = {
    "yanmo --help": [sys.executable, "-m", "yanmo", "--help"],
    "bare python": [sys.executable, "-c", "pass"],
}
ROUNDS = 15


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    took: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS + 1):
        for name, command in COMMANDS.items():
            took[name].append(seconds(command))
    for name, values in took.items():
        values = values[1:]  # the first warms the caches
        print(f"{name:<14} {statistics.median(values):.3f} s ({min(values):.3f} - {max(values):.3f})")
    print(turns.save("help_time", {"seconds": {name: values[1:] for name, values in took.items()}}))


if __name__ == "__main__":
    main()
