"""Encodings found on evidence, held against the known ones, file by file.

    python benchmarks/decoding.py $CORPORA

Reads ``wild_encodings/``, ``prose/raw_asfound/`` and ``plays/zh_raw_gbk/`` of the folder. Each file is
decoded as ``yanmo`` does and by the codec it is known to be in: a Big5 novel by cp950, the Big5 of Windows,
else big5hkscs; a file with UTF-8's mark by that; what is left by gb18030. Where a clean twin
``<name>.clean.txt`` stands one folder up, the share of its lines that occur in the text is given. Prints a
Markdown table, and exits 1 if any character differs.
"""

import sys
from pathlib import Path

from yanmo.text.read.damage import decode_lenient
from yanmo.text.read.encodings import PRIVATE

FOLDERS = ("wild_encodings", "prose/raw_asfound", "plays/zh_raw_gbk")
BIG5 = ("仙俠五花劍", "濟公全傳")
"""What the file's provenance says is Big5."""


def main(corpora: Path) -> int:
    print(
        "| file | encoding found | characters | private-use | U+FFFD | differing | lines of the clean twin |"
    )
    print("|---|---|---|---|---|---|---|")
    differing_in_all = number = 0
    for path in [file for folder in FOLDERS for file in sorted((corpora / folder).glob("*.txt"))]:
        data = path.read_bytes()
        text, found, lost = decode_lenient(data)
        known = by_known_codec(path.stem, data)
        differing = sum(a != b for a, b in zip(text, known, strict=False)) + abs(len(text) - len(known))
        private, replaced = len(PRIVATE.findall(text)), text.count("\ufffd")
        print(
            f"| {path.name} | {found} | {len(text):,} | {private} | {replaced} | {differing} |"
            f" {twin_share(path, text)} |"
        )
        differing_in_all += differing + lost
        number += 1
    print(f"\n{number} files, {differing_in_all} differing characters")
    return 1 if differing_in_all or not number else 0


def by_known_codec(name: str, data: bytes) -> str:
    if data.startswith(b"\xef\xbb\xbf"):
        return data.decode("utf-8-sig")
    if name not in BIG5:
        return data.decode("gb18030")
    try:
        return data.decode("cp950")
    except ValueError:
        return data.decode("big5hkscs")


def twin_share(path: Path, text: str) -> str:
    twin = path.parent.parent / f"{path.stem}.clean.txt"
    if not twin.is_file():
        return ""
    lines = {line.strip() for line in text.splitlines()}
    wanted = [line.strip() for line in twin.read_text(encoding="utf-8").splitlines() if line.strip()]
    return f"{sum(line in lines for line in wanted) / len(wanted):.2%} of {len(wanted):,}"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
