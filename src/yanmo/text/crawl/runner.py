"""`yanmo crawl`: a profile becomes a .jsonl of texts, with a manifest beside it.

In: a profile and the name of the output. Out: ``NAME.jsonl``, ``NAME.manifest.json``, and the folder
``NAME.crawl`` with the journal, from which the same command goes on after any end. The output is made
from the journal in the order of the walk, and is whole or absent.
"""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from yanmo.core.console import Console
from yanmo.core.errors import BusyError, ConfigError, DataError, Stopped
from yanmo.core.storage import file_lock, write_atomic, write_json
from yanmo.text.crawl.addresses import why_refused
from yanmo.text.crawl.frontier import Frontier, Task, key_of
from yanmo.text.crawl.journal import Journal
from yanmo.text.crawl.profile import Profile
from yanmo.text.crawl.rows import documents, read_row
from yanmo.text.read.kinds import MANIFEST_SUFFIX

SCHEMA = 1
JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class Found:
    """The result of a crawl."""

    out: Path
    manifest: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"out": str(self.out), **self.manifest}

    def lines(self) -> list[str]:
        """For people."""
        counts, reasons = self.manifest["counts"], self.manifest["reasons"]
        documents, characters = self.manifest["documents"], self.manifest["characters"]
        said = [
            f"{self.out}: {documents:,} documents, {characters:,} characters",
            f"  {self.manifest['found']:,} addresses found: "
            + ", ".join(f"{number:,} {name}" for name, number in counts.items()),
        ]
        for outcome, by_reason in reasons.items():
            said.append(f"  {outcome}: " + ", ".join(f"{n:,} × {why}" for why, n in by_reason.items()))
        if self.manifest["unfinished"]:
            said.append(f"  not finished: {self.manifest['unfinished']}; the same command goes on")
        return said


def crawl(profile: Profile, out: Path, console: Console, settings: dict[str, Any] | None = None) -> Found:
    """Crawl a site, or go on with a crawl that ended early; Scrapy's ``settings`` take precedence over ours.

    Raises:
        BusyError: another process crawls into the same output.
        Stopped: by a signal; what was fetched is kept.
        DataError: there is no text.
    """
    from yanmo.text.crawl.spider import STOPPED, run

    folder = out.with_suffix(".crawl")
    if out.suffix != ".jsonl":
        raise ConfigError(f"the output is called {out.name}", "--out", "name a file that ends in .jsonl")
    _warn(profile, console)
    frontier = Frontier(profile)
    with _owned(folder, out), Journal(folder / JOURNAL) as journal:
        ended, signal_number = run(profile, frontier, journal, console, settings)
        found = _write(profile, out, frontier, journal, ended)
    if ended == STOPPED:
        raise Stopped(
            signal_number, f"stopped; {frontier.waiting:,} of {frontier.found:,} addresses are waiting",
            str(out), "the same command goes on; what was fetched is kept",
        )  # fmt: skip
    if not found.manifest["documents"]:
        again = "the same command tries again what failed; " if "failed" in found.manifest["counts"] else ""
        raise DataError(
            "no text was found: " + "; ".join(line.strip() for line in found.lines()[1:]),
            str(out),
            f"{again}--dry-run {profile.start[0]} shows what the profile sees there",
        )
    return found


def written(out: Path) -> tuple[Path, Path]:
    """The files that a crawl into ``out`` makes: the texts and their manifest."""
    return out, out.with_suffix(MANIFEST_SUFFIX)


def is_crawled(out: Path) -> bool:
    """Whether a crawl into ``out`` was begun before, so that the files there are its own."""
    return (out.with_suffix(".crawl") / JOURNAL).is_file()


def dry_run(profile: Profile, url: str, console: Console) -> dict[str, Any]:
    """What one page yields, read as a list and as a text; nothing is written."""
    from yanmo.text.crawl.spider import run

    if reason := why_refused(url, profile):
        raise ConfigError(
            f"the page is refused: {reason}",
            url,
            f"the profile's hosts are {', '.join(sorted(profile.allowed_hosts))}",
        )
    hosts, budget = tuple(profile.allowed_hosts), profile.budget.model_copy(update={"max_pages": 1})
    alone = profile.model_copy(update={"start": (url,), "hosts": hosts, "budget": budget})
    with TemporaryDirectory() as folder, Journal(Path(folder) / JOURNAL) as journal:
        _, signal_number = run(alone, Frontier(alone), journal, console, None)
        row = journal.find(key_of(url))
    if row is None:
        raise Stopped(signal_number, "stopped", url, "nothing was written")
    found: dict[str, Any] = {
        key: row[key] for key in ("url", "refused", "failed", "to", "undecodable") if key in row
    }
    if "page" not in row or "undecodable" in row:
        return found
    read = read_row(row, Task(url, key_of(url), "chapter", url), profile)["read"]
    read_as_list = read_row(row, Task(url, key_of(url), "list", url), profile)["read"]
    book = {"book_title": read_as_list["title"], "book_author": read_as_list["author"]}
    return found | dict(read) | (book if profile.join == "book" else {})


def _write(profile: Profile, out: Path, frontier: Frontier, journal: Journal, unfinished: str) -> Found:
    """Write the documents and the manifest, both made from the journal alone."""
    lines: list[str] = []
    characters, found_by, encodings = 0, Counter[str](), Counter[str]()
    for document, rows in documents(frontier, journal, profile):
        lines.append(json.dumps(document, ensure_ascii=False) + "\n")
        characters += len(document["text"])
        found_by.update(row["read"]["by"] for row in rows)
        encodings.update(row["read"]["encoding"] for row in rows)
    text, tally = "".join(lines), frontier.tally
    counts = dict(sorted(tally.outcomes.items()))
    manifest = {
        "schema": SCHEMA,
        "documents": len(lines),
        "characters": characters,
        "sha256": hashlib.sha256(text.encode("utf-8")).hexdigest(),
        "found": frontier.found,
        "counts": counts | ({"waiting": frontier.waiting} if frontier.waiting else {}),
        "reasons": {outcome: dict(reasons.most_common()) for outcome, reasons in tally.reasons.items()},
        "texts_found_by": dict(found_by),
        "encodings": dict(encodings),
        "unfinished": unfinished,
        "profile": profile.model_dump(mode="json"),
        "named": tally.named,
    }
    write_atomic(out, text)
    write_json(written(out)[1], manifest)
    return Found(out, manifest)


@contextlib.contextmanager
def _owned(folder: Path, out: Path) -> Iterator[None]:
    """Hold the crawl's folder; ``run.lock`` also tells the corpus reader to pass it over."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(file_lock(folder / "run.lock"))
        except BusyError as error:
            raise BusyError(
                "another process crawls into this output", str(out), "wait for it, or name another --out"
            ) from error
        yield


def _warn(profile: Profile, console: Console) -> None:
    if not profile.verified:
        console.warn("this profile is unverified: nobody has seen it work; look with --dry-run URL first")
    if not profile.contact:
        console.warn("the profile names no contact; set one, so that the site's owner can write to you")
    console.print(f"permission: {profile.permission}")
