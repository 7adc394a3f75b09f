"""Every reader of files that somebody else may have made: a small good input, and the door it goes in by."""

import base64
import bz2
import csv
import gzip
import io
import json
import lzma
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch

from tests.makers.books import BOOK
from tests.makers.documents import dialogues, read
from tests.makers.models import (
    ENTRIES,
    LETTERS,
    TOKENIZER,
    TOKENIZERS,
    NanoGPT,
    char_tokenizer,
    drawn,
    lively_model,
    nanogpt_checkpoint,
    our_folder,
    small,
)
from tests.makers.spoiled import zipped
from tests.makers.texts import lesson
from yanmo.checkpoint.folder import (
    Progress,
    load_model_and_tokenizer,
    load_training,
    read_recipe,
    read_state,
    save_checkpoint,
    verify_model,
)
from yanmo.checkpoint.step_schedule import ScheduleRecord, StepSchedule
from yanmo.cli.writing import read_prompts
from yanmo.core import storage
from yanmo.core.console import Console
from yanmo.core.records import Manifest, read_record
from yanmo.data.prepare import prepare
from yanmo.eval.baselines import baselines_of
from yanmo.eval.log import check_log
from yanmo.generate.chat import TextChat
from yanmo.generate.engine import generate
from yanmo.generate.terminal import converse
from yanmo.generate.text import listed_samples
from yanmo.hub.imports.importer import import_
from yanmo.hub.imports.pickled import open_pickle
from yanmo.hub.imports.proof import Proof
from yanmo.settings.recipe import load_recipe, to_toml
from yanmo.settings.schema import CorpusConfig, DataConfig, Recipe, SampleConfig, TokenizerConfig
from yanmo.text.clean.run import licence_beside
from yanmo.text.read.dialogues import recognise
from yanmo.tokenizer import files, read_tokenizer
from yanmo.tokenizer.library import byte_letters
from yanmo.train.metrics import read_metrics

Files = dict[str, bytes]


@dataclass(frozen=True)
class Parser:
    """What is read, from which files, and how."""

    good: Callable[[], Files]
    read: Callable[[Path], object]
    is_slow: bool = False
    """A case starts a process: fewer are tried by day."""


TEXT = (
    "第一章 夜雨\n江湖夜雨十年灯，桃李春风一杯酒。\r\n他说：“走罢。”the inn, 42 li.\n\n第二章 春风\n不见。\n"
    * 3
)
VOICE = Console(io.StringIO())


def one(name: str, data: bytes | str) -> Callable[[], Files]:
    return lambda: {name: data.encode() if isinstance(data, str) else data}


# -- texts ------------------------------------------------------------------------------------


def corpus(name: str, **how: str | bool) -> Callable[[Path], object]:
    """A file as one of a folder, where it may be left out and counted, then by its own name."""

    def read_both(folder: Path) -> object:
        assert read(folder, **how) is not None
        return read(folder / name, **how)

    return read_both


def conversations(name: str) -> Callable[[Path], object]:
    """The same, of dialogues."""

    def read_both(folder: Path) -> object:
        recognise([str(folder)])
        assert dialogues(folder) is not None
        return dialogues(folder / name)

    return read_both


def table(delimiter: str) -> str:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([["title", "text", "n"], ["一", TEXT, 1], ["二", "江湖，“夜雨”", 2]])
    return file.getvalue()


def parquet() -> Files:
    import pyarrow
    from pyarrow import parquet

    file = io.BytesIO()
    rows = pyarrow.table({"text": [TEXT, "江湖夜雨"], "id": [1, 2]})
    parquet.write_table(rows, file)
    return {"a.parquet": file.getvalue()}


def docx() -> Files:
    import docx

    file = io.BytesIO()
    made = docx.Document()
    made.add_heading("第一回 渡口", 1)
    made.add_paragraph(TEXT)
    made.add_table(1, 2).cell(0, 0).text = "甲"
    made.save(file)
    return {"a.docx": file.getvalue()}


def zstandard() -> Files:
    from backports import zstd

    return {"a.txt.zst": zstd.compress(TEXT.encode())}


ROWS = "".join(
    json.dumps({"text": text, "title": "书", "n": 1}, ensure_ascii=False) + "\n" for text in TEXT.split("\n")
)
TURNS = "".join(
    json.dumps({"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "走"}]})
    + "\n"
    for text in ("江湖", "夜雨", TEXT)
)
CHOICES = '{"prompt": "江湖", "chosen": "夜雨", "rejected": "春风", "format": "text"}\n'
PAGE = f"""<!DOCTYPE html><html><head><meta charset="utf-8"><title>书</title></head><body><nav><a href="/">首页</a></nav>
<div id="content"><h1>第一章</h1><p>{TEXT}</p><p style="display:none">x</p>&#12345;<br><a href="2.html">下一章</a></div>
<script>var a = "<p>";</script></body></html>"""
DUMP = f'<doc id="1" url="u" title="书">\n{TEXT}\n</doc>\n<doc id="2" url="v" title="剑">\n江湖\n</doc>\n'
BOOK_FILES = {name: data.encode() for name, data in BOOK.items()}
PACKED = {"一.txt": TEXT.encode(), "二.jsonl": ROWS.encode(), "三/四.html": PAGE.encode()}

TEXTS = {
    **{
        f"txt in {encoding}": Parser(one("a.txt", TEXT.encode(encoding)), corpus("a.txt"))
        for encoding in ("utf-8", "utf-8-sig", "gb18030", "utf-16")
    },
    "txt in utf-32": Parser(one("a.txt", TEXT.encode("utf-32")), corpus("a.txt", encoding="utf-32")),
    "txt in big5": Parser(one("a.txt", "江湖夜雨十年燈，桃李春風一杯酒。\n".encode("big5") * 5), corpus("a.txt")),
    "chapters": Parser(one("a.txt", TEXT), corpus("a.txt", split_chapters=True)),
    "separator": Parser(one("a.txt", TEXT), corpus("a.txt", separator="\n\n")),
    "jsonl": Parser(one("a.jsonl", ROWS), corpus("a.jsonl")),
    "dialogues": Parser(one("a.jsonl", TURNS), corpus("a.jsonl", text_field="messages.content")),
    **{
        f"conversations in {name}": Parser(good, conversations(name))
        for name, good in {
            "a.jsonl": one("a.jsonl", TURNS + CHOICES),
            "a.json": one("a.json", json.dumps([json.loads(line) for line in TURNS.splitlines()])),
            "a.csv": one("a.csv", "问题,回答\n江湖？,夜雨。\n桃李？,春风。\n"),
        }.items()
    },
    "json": Parser(one("a.json", json.dumps({"data": [{"text": TEXT}, {"text": "剑"}]})), corpus("a.json")),
    "csv": Parser(one("a.csv", table(",")), corpus("a.csv")),
    "tsv": Parser(one("a.tsv", table("\t")), corpus("a.tsv")),
    "html": Parser(one("a.html", PAGE), corpus("a.html")),
    "extracted dump": Parser(one("wiki_00", DUMP), corpus("wiki_00")),
    "parquet": Parser(parquet, corpus("a.parquet")),
    "epub": Parser(lambda: {"a.epub": zipped(BOOK_FILES)}, corpus("a.epub")),
    "docx": Parser(docx, corpus("a.docx")),
    "zip": Parser(lambda: {"a.zip": zipped(PACKED)}, corpus("a.zip")),
    "gz": Parser(lambda: {"a.jsonl.gz": gzip.compress(ROWS.encode())}, corpus("a.jsonl.gz")),
    "bz2": Parser(one("a.txt.bz2", bz2.compress(TEXT.encode())), corpus("a.txt.bz2")),
    "xz": Parser(one("a.txt.xz", lzma.compress(TEXT.encode())), corpus("a.txt.xz")),
    "zst": Parser(zstandard, corpus("a.txt.zst")),
    "licence": Parser(
        one("a.manifest.json", json.dumps({"sources": [{"licences": {"CC0": 3}}]})),
        lambda folder: licence_beside(touched(folder / "a.jsonl")),
    ),
    "prompts": Parser(one("a.txt", TEXT), lambda folder: read_prompts(folder / "a.txt")),
}  # fmt: skip


def touched(path: Path) -> Path:
    path.touch()
    return path


# -- settings ---------------------------------------------------------------------------------

SETTINGS = b"model.n_layer=2 model.init='a' train.minutes=1.5 corpus.path=['a','b'] optim.name=adamw sample.stop=[\"x\"]"


def setting(folder: Path) -> object:
    """Words of a command line, such as a shell hands them on."""
    words = (folder / "words").read_bytes().decode("utf-8", "surrogateescape").split()
    return load_recipe(None, [word for word in words if "=" in word])


def profile(folder: Path) -> object:
    from yanmo.text.crawl.profile import load_profile

    return load_profile(str(folder / "a.toml")).allowed_hosts


PROFILE = """start = ["https://example.org/list.html"]
hosts = ["example.org", "[::1]:8000"]
permission = "asked in May"
contact = "me@example.org"
delay = 2.0
encoding = "gb18030"
[select]
list = "a.more"
chapter = "#list a"
next = "a.next"
title = "h1"
body = "#content"
drop = [".ad", "script"]
[budget]
max_pages = 10
max_minutes = 1.5
"""
RECIPES = {
    "recipe": Parser(
        lambda: {"a.toml": to_toml(load_recipe(None, ["corpus.path=['a','b']", "model.n_layer=3"])).encode()},
        lambda folder: load_recipe(folder / "a.toml"),
    ),
    "setting": Parser(one("words", SETTINGS), setting),
    "profile of a site": Parser(one("a.toml", PROFILE), profile),
}


# -- vocabularies -----------------------------------------------------------------------------


def vocabulary(name: str, known: int = 0) -> Callable[[Path], object]:
    """Read, and used once; ``known`` ranks are those of a .tiktoken file that is."""

    def open_it(folder: Path) -> object:
        rules = {known: (files.GPT2, {"<|endoftext|>": known})} if known else {}
        with patch.dict(files.TIKTOKEN_FILES, rules):
            tokenizer = read_tokenizer(folder / name, TokenizerConfig())
        return tokenizer.decode(tokenizer.encode(TEXT[:60]))

    return open_it


def saved(kind: str) -> Files:
    with TemporaryDirectory() as folder:
        TOKENIZERS[kind]().save(Path(folder), 16)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@cache
def sentencepiece_model(kind: str) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lesson(4000).split("\n")), model_writer=model, vocab_size=340, model_type=kind,
        byte_fallback=True, minloglevel=2, num_threads=1,
    )  # fmt: skip
    return model.getvalue()


def gpt2_files() -> Files:
    model = TOKENIZERS["bpe"]().spec["model"]
    merges = "#version: 0.2\n" + "\n".join(model["merges"]) + "\n"
    vocab = {**model["vocab"], "<|endoftext|>": len(model["vocab"])}
    return {"encoder.json": json.dumps(vocab).encode(), "vocab.bpe": merges.encode()}


def tiktoken_file() -> Files:
    letters = byte_letters().values()
    return {
        "a.tiktoken": b"".join(b"%s %d\n" % (base64.b64encode(bytes([v])), n) for n, v in enumerate(letters))
    }


META = pickle.dumps({"vocab_size": len(LETTERS), "itos": dict(enumerate(LETTERS))})
VOCABULARIES = {
    **{f"tokenizer.json, {kind}": Parser(partial(saved, kind), vocabulary("")) for kind in TOKENIZERS},
    **{
        f"sentencepiece, {kind}": Parser(
            lambda kind=kind: {"a.model": sentencepiece_model(kind)}, vocabulary("a.model")  # type: ignore[misc]
        )
        for kind in ("unigram", "bpe")
    },
    "vocab.txt": Parser(
        lambda: {
            "vocab.txt": "\n".join(ENTRIES).encode(),
            "added_tokens.json": json.dumps({"<x>": len(ENTRIES)}).encode(),
            "special_tokens_map.json": b'{"eos_token": "<x>", "additional_special_tokens": ["<x>"]}',
        },
        vocabulary("vocab.txt"),
    ),
    "encoder.json": Parser(gpt2_files, vocabulary("encoder.json")),
    "tiktoken": Parser(tiktoken_file, vocabulary("a.tiktoken", known=256)),
    "meta.pkl": Parser(one("meta.pkl", META), vocabulary("meta.pkl")),
}  # fmt: skip


# -- models -----------------------------------------------------------------------------------

WINDOW = 16


@cache
def model_files(family: str) -> Files:
    tokenizer = char_tokenizer()
    model = drawn(small(family, tokenizer, n_embd=16, block_size=WINDOW, n_layer=1))
    with TemporaryDirectory() as folder:
        our_folder(Path(folder), model, tokenizer)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def sharded() -> Files:
    found = dict(model_files("gpt2"))
    weights = found.pop("model.safetensors")
    index = {"weight_map": {"transformer.wte.weight": "a.safetensors"}}
    return {**found, "a.safetensors": weights, "model.safetensors.index.json": json.dumps(index).encode()}


def write_two(folder: Path) -> object:
    """What `yanmo generate` does with a folder."""
    model, tokenizer = load_model_and_tokenizer(folder)
    config = SampleConfig(max_new_tokens=2, seed=0)
    return list(generate(model, [0], config, tokenizer.end_of_text))


def taken(name: str = "", vocabulary: str = "") -> Callable[[Path], object]:
    """What `yanmo import` does, to a folder beside it."""

    def take(folder: Path) -> object:
        out = folder.with_name("taken")
        storage.remove_path(out)
        config = TokenizerConfig(path=str(folder / vocabulary)) if vocabulary else TokenizerConfig()
        with patch("yanmo.hub.imports.importer.prove", return_value=PROOF):  # it compares, and reads nothing
            return import_(str(folder / name), out, config, VOICE)

    return take


PROOF = Proof("nothing", None, 0.0, 0.0, {}, False)


def pickled(as_zip: bool) -> Files:
    file = io.BytesIO()
    torch.save(
        {"model": {"w": torch.ones(2, 3)}, "model_args": {"n": 1}},
        file,
        _use_new_zipfile_serialization=as_zip,
    )
    return {"ckpt.pt": file.getvalue()}


def nanogpt_files() -> Files:
    with TemporaryDirectory() as folder:
        nanogpt_checkpoint(Path(folder, "ckpt.pt"), NanoGPT(len(LETTERS), True))
        return {"ckpt.pt": Path(folder, "ckpt.pt").read_bytes(), "meta.pkl": META}


def token_file(kind: str) -> Files:
    ids = np.arange(40, dtype="<u2") % len(LETTERS)
    file = io.BytesIO()
    np.save(file, ids)
    header = struct.pack("<256i", 20240520, 1, len(ids), *[0] * 253)
    name, data = {
        "nanoGPT": ("train.bin", ids.tobytes()), "npy": ("train.npy", file.getvalue()),
        "llm.c": ("train.bin", header + ids.tobytes()),
    }[kind]  # fmt: skip
    return {name: data, "meta.pkl": META}


TRAIN_PY = "import time\nout_dir = 'out'\nn_layer = 2 * 3\nlearning_rate = 1e-3\nmax_iters = 500\ndropout = 0.0\nblock_size = 64\n"
MODELS = {
    **{
        f"model folder, {family}": Parser(partial(model_files, family), write_two)
        for family in ("gpt2", "modern", "moe")
    },
    "model in several files": Parser(sharded, write_two),
    "import of a folder": Parser(partial(model_files, "gpt2"), taken()),
    "import of a checkpoint": Parser(nanogpt_files, taken(), is_slow=True),
    "import of settings": Parser(one("train.py", TRAIN_PY), taken("train.py")),
    **{f"import of tokens, {k}": Parser(partial(token_file, k), taken()) for k in ("nanoGPT", "npy", "llm.c")},
    "pickle": Parser(partial(pickled, True), lambda folder: open_pickle(folder / "ckpt.pt"), is_slow=True),
    "old pickle": Parser(partial(pickled, False), lambda folder: open_pickle(folder / "ckpt.pt"), is_slow=True),
}  # fmt: skip


# -- what a site answers ----------------------------------------------------------------------

ADDRESS = "https://example.org/book/1.html"
ROBOTS = """User-agent: *
Disallow: /private/
Allow: /private/open*.html$
Crawl-delay: 2.5
Request-rate: 1/5
Sitemap: https://example.org/sitemap.xml

User-agent: yanmo
Disallow: /*?print=
Crawl-delay: 1
"""
HEADERS = """200
Content-Type: text/html; charset=gbk
Location: ../2.html?q=夜#a
Retry-After: Wed, 21 Oct 2026 07:28:00 GMT
"""


def robots(folder: Path) -> object:
    from yanmo.text.crawl.components import AGENT, crawl_delay, read_robots

    rules = read_robots(200, (folder / "robots.txt").read_bytes())
    assert not isinstance(rules, str)
    return rules.allowed(ADDRESS, AGENT), crawl_delay(rules)


def page(kind: str, content_type: str) -> Callable[[Path], object]:
    """As the spider reads it, into what the journal can keep."""

    def read_it(folder: Path) -> object:
        from yanmo.text.crawl.frontier import Task
        from yanmo.text.crawl.journal import pack
        from yanmo.text.crawl.profile import Profile, Selectors
        from yanmo.text.crawl.rows import read_row

        select = Selectors(list="nav a", chapter="#content a", next="a.next", body="#content", drop=("h1",))
        site = Profile(start=(ADDRESS,), permission="p", select=select if kind == "list" else Selectors())
        row = {"page": pack((folder / "a").read_bytes()), "type": content_type}
        task = Task(ADDRESS, ADDRESS, kind, ADDRESS)  # type: ignore[arg-type]
        return json.dumps(read_row(row, task, site), ensure_ascii=False).encode()

    return read_it


def headers(folder: Path) -> object:
    """A status, and headers as they come over the wire."""
    from scrapy import Request
    from scrapy.http import Response
    from scrapy.settings import Settings

    from yanmo.text.crawl.components import FrontierRedirect, Outcome, header, retry_after
    from yanmo.text.crawl.page import media_type

    status, *lines = (folder / "a").read_bytes().split(b"\n")
    given = dict(line.split(b":", 1) for line in lines if b":" in line)
    number = int(status) if status.isdigit() and len(status) == 3 else 302
    response = Response(ADDRESS, status=number, headers=given)
    redirect = FrontierRedirect(Settings())
    redirect.crawler = SimpleNamespace(spider=None)
    try:
        found = redirect.process_response(Request(ADDRESS, cb_kwargs={"task": 1}), response)
    except Outcome as outcome:
        found = outcome.row
    return found, retry_after(header(response, "Retry-After")), media_type(header(response, "Content-Type"))


def journal(folder: Path) -> object:
    """As a crawl that goes on asks it."""
    from yanmo.text.crawl.frontier import Task
    from yanmo.text.crawl.journal import Journal
    from yanmo.text.crawl.profile import Profile
    from yanmo.text.crawl.rows import known_row

    site = Profile(start=(ADDRESS,), permission="p")
    with Journal(folder / "journal.jsonl") as rows:
        return [known_row(rows, Task(f"{ADDRESS}{n}", f"k{n}", "chapter", ADDRESS), site) for n in range(3)]


def journal_file() -> Files:
    from yanmo.text.crawl.journal import pack

    rows = [
        {
            "key": "k0",
            "url": ADDRESS,
            "rules": "r",
            "type": "text/html",
            "size": 9,
            "page": pack(PAGE.encode()),
        },
        {"key": "k1", "url": ADDRESS, "rules": "r", "to": ADDRESS},
        {"key": "k2", "url": ADDRESS, "rules": "r", "refused": "robots.txt"},
    ]
    return {"journal.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in rows)}


CRAWLED = {
    "robots.txt": Parser(one("robots.txt", ROBOTS), robots),
    "page of a list": Parser(one("a", PAGE), page("list", "text/html")),
    "page of a text": Parser(one("a", PAGE.encode("gb18030")), page("chapter", "text/html; charset=gb2312")),
    "page of plain text": Parser(one("a", TEXT), page("chapter", "text/plain")),
    "headers": Parser(one("a", HEADERS), headers),
    "journal": Parser(journal_file, journal),
}


# -- what we wrote ourselves ------------------------------------------------------------------


@cache
def checkpoint_files() -> Files:
    plan = {"plan": StepSchedule.first(12).as_json(), "recipe": Recipe().model_dump(mode="json")}
    with TemporaryDirectory() as run:
        model, moments = lively_model(), {"w/exp_avg": torch.ones(2)}
        folder = save_checkpoint(
            Path(run), Progress(step=4, tokens=9), model, TOKENIZER, moments, {"torch": "2"}, plan
        )
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }


def reopen(folder: Path) -> object:
    verify_model(folder)
    return read_state(folder), load_training(folder)


@cache
def shard_files() -> Files:
    """Shards made elsewhere: those of one's own are verified as a whole."""
    with TemporaryDirectory() as folder:
        Path(folder, "a.txt").write_text(lesson(2000), encoding="utf-8")
        with patch.dict("os.environ", YANMO_CACHE=f"{folder}/cache"):
            corpus, cut = CorpusConfig(path=(f"{folder}/a.txt",)), DataConfig(val_fraction=0.2)
            done = prepare(corpus, TokenizerConfig(kind="char"), cut, WINDOW, VOICE)
        found = {path.name: path.read_bytes() for path in done.shards.folder.iterdir() if path.is_file()}
        done.tokenizer.save(Path(folder), 16)
        manifest = json.loads(found["manifest.json"])
        manifest["split"] = {"val_fraction": 0.2, "cut_documents": 1, "block_size": WINDOW}
        found["manifest.json"] = json.dumps(manifest).encode()
        return {**found, "tokenizer.json": Path(folder, "tokenizer.json").read_bytes()}


def open_shards(folder: Path) -> object:
    done = prepare(CorpusConfig(path=(str(folder),)), TokenizerConfig(), DataConfig(), WINDOW, VOICE)
    return baselines_of(done.shards, done.tokenizer.vocab_size, done.tokenizer.end_of_text)


METRICS = "".join(
    json.dumps(row) + "\n"
    for row in (
        {"event": "start", "schema": 1, "unigram_bits_per_char": 5.1},
        {"event": "train", "step": 1, "loss": 3.0, "loss_hex": "0x1.8p+1"},
        {"event": "eval", "step": 1, "val_loss": 3.0, "val_bits_per_char": 4.2, "val_perplexity": 20.0},
    )
)  # fmt: skip
SAMPLES = {"samples": [{"number": 1, "file": "001.txt", "seed": 3}]}


def console(folder: Path) -> object:
    """Lines typed to `yanmo chat`."""
    lines = iter((folder / "typed").read_bytes().decode("utf-8", "surrogateescape").split("\n"))

    def next_line() -> str:
        line = next(lines, None)
        if line is None:
            raise EOFError
        return line

    said: list[str] = []
    model = lively_model()
    converse(TextChat(model, TOKENIZER, SampleConfig(max_new_tokens=1, seed=0)), next_line, said.append)
    return said


RECORDS = {
    "checkpoint": Parser(checkpoint_files, reopen),
    "state.json": Parser(
        lambda: {n: d for n, d in checkpoint_files().items() if n.startswith("training/")},
        lambda folder: load_training(folder),
    ),
    "recipe of a run": Parser(lambda: {"recipe.toml": to_toml(Recipe()).encode()}, read_recipe),
    "metrics.jsonl": Parser(one("metrics.jsonl", METRICS), read_metrics),
    "log": Parser(one("log.jsonl", METRICS), lambda folder: check_log(folder / "log.jsonl")),
    "plan.json": Parser(
        one("plan.json", json.dumps(StepSchedule.first(12).as_json())),
        lambda folder: StepSchedule.of(read_record(folder / "plan.json", ScheduleRecord)),
    ),
    "corpus.json": Parser(
        lambda: {"corpus.json": shard_files()["manifest.json"]},
        lambda folder: read_record(folder / "corpus.json", Manifest),
    ),
    "shards": Parser(shard_files, open_shards),
    "samples.json": Parser(one("samples.json", json.dumps(SAMPLES)), listed_samples),
    "console": Parser(one("typed", "江湖\n/temp 0.5\n/len 2\n/topk 3\n/seed 7\n/more\n/retry\n/help\n/x\n"), console),
}  # fmt: skip

PARSERS: dict[str, Parser] = TEXTS | RECIPES | VOCABULARIES | MODELS | CRAWLED | RECORDS
