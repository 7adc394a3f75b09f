"""The plan of the house: a file imports only lower floors and named siblings."""

import ast
from pathlib import Path

import yanmo

ROOT = Path(yanmo.__file__).parent

FLOORS = {
    "errors": 0, "config": 0, "relations": 0, "recipe": 0, "spelling": 0, "places": 0, "log": 0, "storage": 0, "outputs": 0,
    "records": 0, "workers": 0, "signals": 0,
    "text.documents": 1, "text.encodings": 1, "text.records": 1, "text.chapters": 1,
    "text.clean.ads": 1, "text.clean.characters": 1, "text.clean.judge": 1, "text.clean.lines": 1, "text.clean.privacy": 1, "text.clean.misread": 1, "text.clean.scanned": 1,
    "text.clean.rules": 1, "text.clean.run": 1, "text.clean.explain": 1, "text.dedup": 1, "text.mix": 1, "text.notes": 1, "text.report": 1, "text.report_page": 1,
    "text.crawl.profile": 1, "text.crawl.addresses": 1, "text.crawl.page": 1, "text.crawl.journal": 1, "text.crawl.handler": 1,
    "text.crawl.frontier": 1, "text.crawl.robots": 1, "text.crawl.rows": 1, "text.crawl.spider": 1, "text.crawl.runner": 1,
    "text.demo": 1, "text.demo_lexicon": 1, "text.kinds": 1, "text.sources": 1, "text.containers": 1, "text.fields": 1,
    "text.json_values": 1, "text.damage": 1, "text.pieces": 1, "text.tables": 1, "text.markup": 1, "text.epub": 1,
    "text.elements": 1, "text.word": 1,
    "tokenizer": 2, "tokenizer.base": 2, "tokenizer.char": 2, "tokenizer.wordpiece": 2, "tokenizer.lost": 2,
    "tokenizer.library": 2, "tokenizer.files": 2, "tokenizer.learn": 2, "tokenizer.sample": 2,
    "tokenizer.spec": 2, "tokenizer.splits": 2, "tokenizer.cuts": 2, "tokenizer.meta_pickle": 2,
    "tokenizer.sentencepiece_model": 2, "tokenizer.hub": 2, "tokenizer.fast": 2, "tokenizer.judge": 2, "tokenizer.show": 2,
    "model.shape": 3, "model.fused": 3, "model.layers": 3, "model.rotary": 3, "model.cache": 3, "model.moe": 3, "model.config_json": 3,
    "data.shards": 3, "data.encode": 3, "data.split": 3, "data.survey": 3, "data.prepare": 3, "data.batches": 3, "data.contamination": 3, "model.gpt": 3, "model.names": 3,
    "environment": 3,
    "scale.plan": 4, "scale.duplicates": 4, "scale.corpus": 4, "scale.tokens": 4, "scale.steps": 4, "scale.script": 4,
    "scale.estimate": 4,
    "generate": 4, "sampling": 4, "evaluate": 4, "weights": 4,
    "train.distributed": 4, "train.optim": 4, "train.schedule": 4, "train.metrics": 4,
    "train.step": 4, "train.machine": 4, "train.muon": 4,
    "checkpoint": 5, "train.probe": 5, "train.decide": 5, "train.binding": 5, "train.plan": 5,
    "train.run": 6, "train.memory": 6, "train.launch": 6, "train.trainer": 6,
    "hub.recognise": 6, "hub.fetch": 6, "hub.pickled": 6, "hub.pickle_child": 6, "hub.nanogpt": 6, "hub.token_files": 6,
    "hub.foreign": 6, "hub.proof": 6, "hub.importer": 6,
    "hub.card": 6, "hub.gguf_file": 6, "hub.onnx_file": 6, "hub.verify": 6, "hub.llama_child": 6, "hub.exporter": 6,
    "hub.ollama": 6,
    "assess": 7, "chat": 7,
    "cli": 8, "cli_tokenizer": 8, "cli_hub": 8, "cli_corpus": 8, "cli_crawl": 8, "cli_scale": 8, "cli_words": 8, "__main__": 9,
}  # fmt: skip
SIBLINGS = {
    "relations": {"config", "errors"},
    "recipe": {"config", "places", "relations", "errors", "spelling", "storage"},
    "places": {"storage"},
    "storage": {"errors"},
    "records": {"errors", "storage"},
    "outputs": {"errors", "storage"},
    "workers": {"errors"},
    "text.clean.judge": {"text.encodings"},
    "text.clean.misread": {"text.encodings"},
    "text.clean.characters": {"text.clean.misread", "text.encodings", "text.markup"},
    "text.clean.rules": {
        "text.clean.ads",
        "text.clean.characters",
        "text.clean.judge",
        "text.clean.lines",
        "text.clean.privacy",
        "text.clean.scanned",
        "text.records",
    },
    "text.report": {
        "text.chapters",
        "text.clean.ads",
        "text.clean.characters",
        "text.clean.judge",
        "text.clean.rules",
        "text.clean.run",
        "text.clean.scanned",
        "text.dedup",
        "text.documents",
        "text.encodings",
        "text.notes",
        "text.sources",
    },
    "text.notes": {"text.chapters", "text.clean.scanned", "text.encodings"},
    "text.report_page": {"text.clean.ads", "text.report"},
    "text.clean.run": {
        "text.clean.rules",
        "text.dedup",
        "text.documents",
        "text.kinds",
        "text.mix",
        "text.sources",
    },
    "text.clean.explain": {"text.clean.rules", "text.documents"},
    "text.documents": {
        "text.chapters",
        "text.containers",
        "text.demo",
        "text.encodings",
        "text.epub",
        "text.kinds",
        "text.markup",
        "text.pieces",
        "text.records",
        "text.sources",
        "text.tables",
        "text.word",
    },
    "text.word": {"text.containers", "text.elements", "text.records"},
    "text.sources": {"text.kinds"},
    "text.damage": {"text.encodings"},
    "text.records": {"text.encodings", "text.fields", "text.json_values"},
    "text.pieces": {"text.damage", "text.elements", "text.encodings", "text.fields", "text.records"},
    "text.containers": {"text.encodings", "text.kinds", "text.records"},
    "text.tables": {"text.containers", "text.encodings", "text.fields", "text.records"},
    "text.markup": {"text.containers", "text.damage", "text.elements", "text.records"},
    "text.epub": {"text.containers", "text.elements", "text.encodings", "text.markup", "text.records"},
    "text.demo": {"text.demo_lexicon"},
    "text.crawl.addresses": {"text.crawl.profile"},
    "text.crawl.page": {"text.crawl.profile", "text.damage", "text.encodings", "text.markup"},
    "text.crawl.frontier": {"text.crawl.addresses", "text.crawl.page", "text.crawl.profile"},
    "text.crawl.robots": {"text.crawl.profile"},
    "text.crawl.rows": {
        "text.crawl.frontier",
        "text.crawl.journal",
        "text.crawl.page",
        "text.crawl.profile",
    },
    "text.crawl.spider": {
        "text.crawl.addresses",
        "text.crawl.frontier",
        "text.crawl.journal",
        "text.crawl.page",
        "text.crawl.profile",
        "text.crawl.robots",
        "text.crawl.rows",
    },
    "text.crawl.runner": {
        "text.kinds",
        "text.crawl.addresses",
        "text.crawl.frontier",
        "text.crawl.journal",
        "text.crawl.profile",
        "text.crawl.rows",
        "text.crawl.spider",
    },
    "tokenizer": {
        "tokenizer.base",
        "tokenizer.char",
        "tokenizer.wordpiece",
        "tokenizer.library",
        "tokenizer.files",
    },
    "tokenizer.char": {"tokenizer.base", "tokenizer.spec"},
    "tokenizer.wordpiece": {"tokenizer.base", "tokenizer.spec", "tokenizer.splits"},
    "tokenizer.library": {"tokenizer.base", "tokenizer.cuts", "tokenizer.fast", "tokenizer.splits"},
    "tokenizer.sample": {"tokenizer.cuts"},
    "tokenizer.sentencepiece_model": {"tokenizer.spec"},
    "tokenizer.files": {
        "tokenizer.base",
        "tokenizer.char",
        "tokenizer.wordpiece",
        "tokenizer.library",
        "tokenizer.spec",
        "tokenizer.splits",
        "tokenizer.meta_pickle",
        "tokenizer.sentencepiece_model",
    },
    "tokenizer.learn": {
        "tokenizer.base",
        "tokenizer.char",
        "tokenizer.library",
        "tokenizer.sample",
        "tokenizer.spec",
        "tokenizer.splits",
    },
    "tokenizer.judge": {"tokenizer.base", "tokenizer.lost"},
    "tokenizer.show": {"tokenizer.base", "tokenizer.judge", "tokenizer.lost"},
    "cli_tokenizer": {"cli_corpus"},
    "cli": {"cli_corpus", "cli_crawl", "cli_hub", "cli_scale", "cli_tokenizer", "cli_words"},
    "data.survey": {"data.split"},
    "data.prepare": {"data.shards", "data.encode", "data.split", "data.survey"},
    "data.batches": {"data.shards"},
    "data.contamination": {"data.split"},
    "scale.duplicates": {"scale.plan"},
    "scale.corpus": {"scale.plan", "scale.duplicates"},
    "scale.tokens": {"scale.plan", "scale.corpus"},
    "scale.steps": {"scale.plan", "scale.corpus", "scale.duplicates", "scale.tokens"},
    "scale.script": {"scale.plan", "scale.duplicates"},
    "scale.estimate": {"scale.plan", "scale.duplicates", "scale.script"},
    "model.fused": {"data.batches"},
    "model.layers": {"model.fused"},
    "model.cache": {"model.shape"},
    "model.moe": {"model.fused", "model.layers", "model.shape"},
    "model.gpt": {"model.fused", "model.layers", "model.rotary", "model.cache", "model.moe", "model.shape"},
    "model.config_json": {"model.layers", "model.shape"},
    "model.names": {"model.shape"},
    "train.optim": {"train.muon"},
    "train.step": {"train.distributed", "train.machine", "train.optim"},
    "generate": {"sampling"},
    "evaluate": {"train.distributed"},
    "train.binding": {"checkpoint"},
    "train.decide": {"checkpoint", "train.probe"},
    "train.plan": {"train.decide", "train.probe"},
    "train.memory": {"train.run"},
    "train.trainer": {"train.run", "train.memory"},
    "hub.foreign": {"hub.nanogpt", "hub.pickled", "hub.recognise"},
    "hub.importer": {
        "hub.fetch",
        "hub.foreign",
        "hub.nanogpt",
        "hub.proof",
        "hub.recognise",
        "hub.token_files",
    },
    "hub.verify": {"hub.gguf_file", "hub.onnx_file", "hub.proof"},
    "hub.exporter": {"hub.card", "hub.foreign", "hub.gguf_file", "hub.ollama", "hub.onnx_file", "hub.verify"},
}
WITHOUT_TORCH = (
    {name for name, floor in FLOORS.items() if floor <= 2}
    | {
        "data.shards",
        "data.encode",
        "data.prepare",
        "data.split",
        "data.survey",
    }
    | {name for name in FLOORS if name.startswith("scale.")}
)
FOLDERS_UPWARD = ["text", "tokenizer", "data", "scale", "model", "train", "hub"]


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def modules() -> dict[str, Path]:
    found = {module_name(path): path for path in ROOT.rglob("*.py")}
    return {name: path for name, path in found.items() if path.read_text(encoding="utf-8").count("\n") > 1}


def imports_of(path: Path) -> set[str]:
    """Every module a file names in an import, lazy ones included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(path: Path) -> set[str]:
    own = {name.removeprefix("yanmo.") for name in imports_of(path) if name.startswith("yanmo.")}
    return own & set(FLOORS)


def test_every_file_has_a_floor() -> None:
    assert set(modules()) == set(FLOORS)


def test_imports_go_down_or_to_named_siblings() -> None:
    for name, path in modules().items():
        for other in own_imports(path) - {name}:
            lower = FLOORS[other] < FLOORS[name]
            assert lower or other in SIBLINGS.get(name, set()), f"{name} imports {other}"


def test_no_folder_imports_a_folder_above_it() -> None:
    for name, path in modules().items():
        folder = name.partition(".")[0]
        if folder in FOLDERS_UPWARD:
            for other in own_imports(path):
                above = other.partition(".")[0]
                if above in FOLDERS_UPWARD:
                    assert FOLDERS_UPWARD.index(above) <= FOLDERS_UPWARD.index(folder), f"{name} → {other}"


def test_the_lower_floors_never_import_torch() -> None:
    for name in WITHOUT_TORCH:
        assert not any(i.split(".")[0] == "torch" for i in imports_of(modules()[name])), name


def test_nothing_unsafe_is_called() -> None:
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if (name, called) == ("hub.pickle_child", "torch.load"):  # restricted, in its own process
                    assert {k.arg: ast.unparse(k.value) for k in node.keywords}["weights_only"] == "True"
                    continue
                assert called not in {
                    "eval",
                    "exec",
                    "torch.load",
                    "pickle.load",
                    "pickle.loads",
                }, name
        assert "trust_remote_code" not in path.read_text(encoding="utf-8"), name


def test_every_open_names_its_encoding_or_is_binary() -> None:
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called == "open" or called.endswith((".read_text", ".write_text")):
                    modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
                    binary = any("b" in str(mode) for mode in modes) and called.endswith("open")
                    named = any(keyword.arg == "encoding" for keyword in node.keywords)
                    assert named or binary, f"{name}: {ast.unparse(node)}"
