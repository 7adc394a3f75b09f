"""A site on loopback, good and bad: pages by path, each a function of how often it was asked for."""

import gzip
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    chunks: Callable[[], Any] | None = None
    """Makes an endless or slow body."""


Page = Answer | Callable[[str, int], Answer]


class Site:
    """Serves ``pages`` (a trailing ``*`` matches what begins so) and remembers who asked for what."""

    def __init__(self, pages: dict[str, Page], host: str = "127.0.0.1", port: int = 0) -> None:
        self.pages = pages
        self.asked: list[str] = []
        self.times: list[float] = []
        self.agents: set[str] = set()
        self.connections = 0
        self.open_now = 0
        self.most_open = 0
        self._lock = threading.Lock()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # one packet an answer

            def setup(self) -> None:
                super().setup()
                site.connections += 1

            def do_GET(self) -> None:
                with site._lock:
                    site.open_now += 1
                    site.most_open = max(site.most_open, site.open_now)
                try:
                    self.answer()
                except OSError:
                    self.close_connection = True
                finally:
                    with site._lock:
                        site.open_now -= 1

            def answer(self) -> None:
                with site._lock:
                    site.asked.append(self.path)
                    site.times.append(time.monotonic())
                    site.agents.add(self.headers.get("User-Agent", ""))
                    number = site.asked.count(self.path)
                found = site.find(self.path, number)
                self.send_response(found.status)
                headers = {"Content-Type": "text/html"} | found.headers
                if found.chunks is None:
                    headers["Content-Length"] = str(len(found.body))
                else:
                    headers["Transfer-Encoding"] = "chunked"
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if found.chunks is None:
                    self.wfile.write(found.body)
                    return
                for chunk in found.chunks():
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """A crawler that hangs up, or is killed, is no news."""

        self._server = Server((host, port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://{host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def find(self, path: str, number: int) -> Answer:
        page = self.pages.get(path)
        if page is None:
            stars = [p for p in self.pages if p.endswith("*") and path.startswith(p[:-1])]
            page = self.pages[max(stars, key=len)] if stars else Answer(b"<h1>404</h1>", 404)
        return page(path, number) if callable(page) else page

    def serve_tls(self, context: ssl.SSLContext) -> None:
        """Speak https from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def pages_asked(self) -> Counter[str]:
        return Counter(path for path in self.asked if path != "/robots.txt")

    def __enter__(self) -> "Site":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def html(body: str, title: str = "", encoding: str = "utf-8", label: str = "") -> Answer:
    head = f'<meta charset="{label or encoding}"><title>{title}</title>'
    page = f"<html><head>{head}</head><body>{body}</body></html>"
    return Answer(page.encode(encoding))


def links(*paths: str, kind: str = "c") -> str:
    return "".join(f'<li><a class="{kind}" href="{path}">x</a></li>' for path in paths)


def text_page(title: str, *lines: str, more: str = "", **how: str) -> Answer:
    paragraphs = "".join(f"<p>　　{line}</p>" for line in lines)
    return html(f"<h1>{title}</h1><div class='body'>{paragraphs}</div>{more}", title, **how)


def moved(target: str) -> Answer:
    return Answer(status=302, headers={"Location": target})


def zipped(answer: Answer) -> Answer:
    return Answer(gzip.compress(answer.body), 200, {"Content-Encoding": "gzip"})


def robots(*lines: str) -> Answer:
    return Answer("\n".join(lines).encode(), 200, {"Content-Type": "text/plain"})


def toml(site: Site | str, more: str = "", budget: str = "", start: str = "/", join: str = "book") -> str:
    url = site if isinstance(site, str) else site.url
    return f"""
start = ["{url}{start}"]
permission = "a test"
verified = true
contact = "mail@example.org"
delay = 0
private_network = true
join = "{join}"
{more}
[select]
list = "a.l"
next = "a.n"
chapter = "a.c"
body = ".body"
drop = [".ad"]
[budget]
page_seconds = 5
{budget}
"""
