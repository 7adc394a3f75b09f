"""Rows of the journal, and the documents made of them, in the order of the walk.

In: rows, which hold the bytes of pages and what the profile extracted from them. Out: the page of a task as
the profile reads it today, and the documents: one for each text, or one for each book.

A row has ``key``, ``url``, ``fetched``, ``rules`` and one of: ``refused`` or ``failed`` with the reason,
``to`` with the address it redirects to, ``undecodable``, or ``read`` with ``hash``, ``page``, ``type``.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from lxml import etree

from yanmo.core.storage import fingerprint
from yanmo.text.crawl.frontier import Frontier, Task
from yanmo.text.crawl.journal import Journal, Row, pack, unpack
from yanmo.text.crawl.page import VERSION, media_type, read_page
from yanmo.text.crawl.profile import Profile

TEXT_TYPES = ("", "text/html", "application/xhtml+xml", "text/plain", "application/xml", "text/xml")


def rules_of(profile: Profile, task: Task) -> str:
    """A fingerprint of what decides how a page is read: a row with another one is read again."""
    rules = profile.model_dump(include={"select", "encoding", "private_network"})
    return fingerprint([VERSION, task.kind, rules, profile.budget.max_page_mb])


def new_row(task: Task, profile: Profile) -> Row:
    """The beginning of a page's row."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"key": task.key, "url": task.url, "rules": rules_of(profile, task), "fetched": now}


def page_row(task: Task, profile: Profile, content_type: str, body: bytes) -> Row:
    """The row of a page that was fetched."""
    row = new_row(task, profile)
    if media_type(content_type) not in TEXT_TYPES:
        return row | {"refused": f"type {media_type(content_type)}"}
    row |= {"type": content_type, "size": len(body), "page": pack(body)}
    return row | read_row(row, task, profile)


def settle(frontier: Frontier, task: Task, row: Row) -> None:
    """Tell the frontier the outcome of a page."""
    if "refused" in row:
        frontier.refuse(task, row["refused"])
    elif "failed" in row:
        frontier.fail(task, row["failed"])
    elif "to" in row:
        frontier.redirect(task, row["to"])
    elif "undecodable" in row:
        frontier.refuse(task, "undecodable")
    elif task.kind == "list":
        frontier.list_read(task, row["read"]["links"], row["size"])
    else:
        frontier.text_read(task, row["hash"], row["read"]["links"].get("next", []), row["size"])


def read_row(row: Row, task: Task, profile: Profile) -> Row:
    """What the page in a row yields, as the part of the row that the rules decide."""
    data = unpack(row["page"])
    try:
        page = read_page(data, row["type"], task.url, profile, task.kind)
    except (ValueError, RecursionError, etree.LxmlError) as error:  # one page must not end a crawl
        return {"undecodable": str(error)}
    digest = hashlib.sha256(page.text.encode("utf-8")).hexdigest() if page.text else ""
    return {"read": page.as_json(), "hash": digest}


def known_row(journal: Journal, task: Task, profile: Profile) -> Row | None:
    """The journal's row of a page; None where it has to be fetched: unknown, failed or damaged."""
    row = journal.find(task.key)
    if row is None or "failed" in row:
        return None
    if row.get("rules") == rules_of(profile, task) or "to" in row:
        return row
    with contextlib.suppress(LookupError, TypeError, AttributeError, ValueError):
        return row | read_row(row, task, profile)
    return None


def documents(frontier: Frontier, journal: Journal, profile: Profile) -> Iterator[tuple[Row, list[Row]]]:
    """(document, the rows it is made of), in the order of the walk; a book is where its first text is."""
    if profile.join == "page":
        for task in frontier.kept:
            row = _row(journal, task, profile)
            yield _document(row, [row["read"]["text"]]), [row]
        return
    books: dict[str, list[Task]] = {}
    for task in frontier.kept:
        books.setdefault(task.book, []).append(task)
    for book, tasks in books.items():
        rows = [_row(journal, task, profile) for task in frontier.in_order(book, tasks)]
        cover = _row(journal, frontier.lists[book], profile) if book in frontier.lists else rows[0]
        yield _document(cover, _with_headings(rows), rows[0]) | {"chapters": len(rows)}, rows


def _row(journal: Journal, task: Task, profile: Profile) -> Row:
    row = known_row(journal, task, profile)
    assert row is not None  # it was visited in this very walk
    return row


def _document(cover: Row, texts: list[str], first: Row | None = None) -> dict[str, Any]:
    """One line of the output; what the cover does not say is taken from the first chapter."""
    text = "\n\n".join(texts)
    said = {key: cover["read"][key] or (first or cover)["read"][key] for key in ("title", "author", "time")}
    return {
        "text": text,
        "url": cover["url"],
        **said,
        "hash": hashlib.sha256(text.encode("utf-8")).hexdigest(),
    }


def _with_headings(rows: list[Row]) -> list[str]:
    """The texts of a book's pages, each new title as a line above."""
    texts, before = [], ""
    for row in rows:
        title, text = row["read"]["title"], row["read"]["text"]
        is_new = title and title != before and text.partition("\n")[0] != title
        texts.append(f"{title}\n{text}" if is_new else text)
        before = title
    return texts
