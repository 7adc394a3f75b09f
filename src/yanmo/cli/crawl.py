"""``yanmo crawl``: a site becomes a file of texts, politely."""

import importlib.util
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from yanmo.core.commands import install_command
from yanmo.core.errors import ConfigError

PREVIEW_CHARACTERS = 600
"""Characters of the text that a dry run shows."""
LINKS_SHOWN = 5


def crawl(
    site: Annotated[
        str,
        typer.Argument(
            metavar="SITE",
            help="A site profile: your .toml (sites/template.toml explains every key), or the name of a"
            " built-in one: prose, prose2.",
            show_default=False,
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="The file to write. [default: SITE.jsonl]")] = None,
    dry_run: Annotated[
        str | None,
        typer.Option("--dry-run", metavar="URL", help="Show what the profile finds on one page, and stop."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite a file that no crawl of this name made.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on standard output.")
    ] = False,
) -> None:
    """Crawl a site that allows it into a file of texts. The same command resumes."""
    check_extra()
    from yanmo.core.console import Console
    from yanmo.core.outputs import require_file
    from yanmo.text.crawl import runner
    from yanmo.text.crawl.profile import load_profile

    profile = load_profile(site)
    if dry_run is not None:
        page = runner.dry_run(profile, dry_run, Console())
        print(json.dumps(page, ensure_ascii=False) if as_json else "\n".join(describe(page)))
        return
    target = out or Path(f"{Path(site).stem}.jsonl")
    for file in runner.written(target):
        require_file(file, "--out", [Path(site)], lambda _: runner.is_crawled(target), force)
    found = runner.crawl(profile, target, Console())
    print(json.dumps(found.as_json(), ensure_ascii=False) if as_json else "\n".join(found.lines()))


def check_extra() -> None:
    """Crawling needs libraries that yanmo alone does not."""
    missing = [name for name in ("scrapy", "trafilatura") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} is not installed", "yanmo crawl", install_command("crawl")
        )


def describe(page: dict[str, Any]) -> list[str]:
    """One page for people."""
    links, text = page.pop("links", {}), page.pop("text", "")
    lines = [f"{key:<12} {value}" for key, value in page.items() if value]
    for name, urls in links.items():
        lines.append(f"{name:<12} {len(urls):,} links")
        lines += [f"{'':<12} {url}" for url in urls[:LINKS_SHOWN]]
    if "by" in page:
        lines += [f"{'text':<12} {len(text):,} characters", "", text[:PREVIEW_CHARACTERS]]
    return lines
