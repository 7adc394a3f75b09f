"""Crawl a local site of GBK pages, kill the crawler on the way, begin again: is a page lost or doubled?

    python benchmarks/crawl_kill.py [--pages 500] [--kills 5]

The site is one book of so many chapters in lists of fifty, labelled gb2312, each with a character that
only GB18030 has. The crawler is a process of its own and dies by SIGKILL, each time after its share of
the pages, at a moment drawn by chance. Compared are the chapters in the output with those of the site.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PER_LIST = 50
PROFILE = """
start = ["http://127.0.0.1:{port}/"]
permission = "a measurement"
verified = true
contact = "nobody@example.org"
delay = 0
private_network = true
[select]
next = "a.next"
chapter = "li a"
body = "div.body"
"""


@dataclass(frozen=True)
class Measured:
    pages: int
    kills: int
    lost: int
    doubled: int
    out_of_order: int
    asked_twice: int
    """Pages that were fetched again because the crawler died between the answer and the journal."""
    seconds: float


def chapter(number: int) -> str:
    return f"第{number}章的正文，生僻字𠮷在这里。"


def page(path: str, pages: int) -> str | None:
    name = path.strip("/").removesuffix(".html")
    if name.startswith("c"):
        number = int(name[1:])
        return f"<h1>第{number}章</h1><div class=body>{chapter(number)}</div>" if number < pages else None
    begin = int(name[1:] or 0) if name.startswith("l") else 0 if not name else None
    if begin is None:
        return None
    end = min(begin + PER_LIST, pages)
    items = "".join(f"<li><a href='/c{number}.html'>第{number}章</a></li>" for number in range(begin, end))
    return f"<h1>长书</h1><ul>{items}</ul>" + (
        f"<a class=next href='/l{end}.html'>下一页</a>" if end < pages else ""
    )


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A crawler that is killed hangs up: no news."""


@contextmanager
def serve(pages: int) -> Iterator[tuple[int, Counter[str]]]:
    """A site on loopback: (its port, how often each page was asked for)."""
    asked: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # one packet an answer

        def do_GET(self) -> None:
            asked[self.path] += 1
            found = page(self.path, pages) if self.path != "/robots.txt" else None
            head = "<meta charset=gb2312>" if found else ""
            body = (head + (found or "")).encode("gb18030")
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/html; charset=gb2312")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], asked
        finally:
            server.shutdown()
            thread.join()


def measure(pages: int, kills: int, folder: Path, seed: int = 0) -> Measured:
    """Crawl with ``kills`` kills on the way, then to the end."""
    rng, begun = random.Random(seed), time.monotonic()
    with serve(pages) as (port, asked):
        (folder / "long.toml").write_text(PROFILE.format(port=port), encoding="utf-8")
        command = [sys.executable, "-m", "yanmo", "crawl", "long.toml"]
        for number in range(kills):
            crawler = subprocess.Popen(
                command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            goal = (number + 1) * pages // (kills + 1)
            while len(asked) < goal:
                if crawler.poll() is not None:
                    raise SystemExit(f"the crawler ended by itself with {crawler.returncode}")
                time.sleep(0.001)
            time.sleep(rng.random() * 0.02)
            crawler.kill()
            crawler.wait()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return compare(pages, kills, folder, asked, time.monotonic() - begun)


def compare(pages: int, kills: int, folder: Path, asked: Counter[str], seconds: float) -> Measured:
    """What the output has of what the site had."""
    (line,) = (folder / "long.jsonl").read_text(encoding="utf-8").splitlines()
    lines = json.loads(line)["text"].split("\n")
    found = [line for line in lines if "正文" in line]
    times = Counter(found)
    return Measured(
        pages=pages,
        kills=kills,
        lost=sum(1 for number in range(pages) if not times[chapter(number)]),
        doubled=sum(count - 1 for count in times.values()),
        out_of_order=sum(1 for number, line in enumerate(found) if line != chapter(number)),
        asked_twice=sum(count - 1 for path, count in asked.items() if path != "/robots.txt"),
        seconds=round(seconds, 1),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=500)
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(asdict(measure(options.pages, options.kills, Path(scratch)))))
