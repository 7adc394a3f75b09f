"""The plan of the house: a file imports its own folder and folders below it, and no circle is closed."""

import ast
from functools import cache
from pathlib import Path

import yanmo

ROOT = Path(yanmo.__file__).parent

FOLDERS = (
    "core", "settings", "model", "parallel", "tokenizer", "text.demo", "text.read", "text.clean", "text.inspect",
    "text.crawl", "data", "checkpoint", "generate", "eval", "scale", "train", "report", "server", "hub.imports", "hub.exports",
    "cli",
)  # fmt: skip
"""From low to high."""
LOOSE = {"__init__", "__main__"}
WITHOUT_TORCH = {
    "core",
    "settings",
    "tokenizer",
    "scale",
    *(folder for folder in FOLDERS if folder.startswith("text.")),
}
"""Folders that never import it: text is cleaned, and --help is written, where there is none."""
FILES_WITHOUT_TORCH = {
    "cli.app", "cli.corpus", "cli.words",
    "data.shards", "data.encode", "data.prepare", "data.split", "data.survey", "data.contamination", "data.batches",
    "data.text_index",
    "model.config", "checkpoint.step_schedule", "checkpoint.hf_config", "eval.baselines",
}  # fmt: skip


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


@cache
def modules() -> dict[str, Path]:
    found = {module_name(path): path for path in ROOT.rglob("*.py")}
    return {name: path for name, path in found.items() if path.read_text(encoding="utf-8").count("\n") > 1}


@cache
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


def folder_of(name: str) -> str:
    return max((f for f in FOLDERS if f"{name}.".startswith(f"{f}.")), key=len, default="")


def own_imports(name: str, path: Path) -> set[str]:
    """The modules of yanmo that a file imports."""
    found = {other.removeprefix("yanmo.") for other in imports_of(path) if other.startswith("yanmo.")}
    return found & set(modules()) - {name}


def test_nothing_lies_loose() -> None:
    assert {name for name in modules() if not folder_of(name)} <= LOOSE


def test_imports_go_down() -> None:
    for name, path in modules().items():
        if name not in LOOSE:
            for other in own_imports(name, path):
                above, here = folder_of(other), folder_of(name)
                assert FOLDERS.index(above) <= FOLDERS.index(here), f"{name} imports {other}"


def test_no_circle_is_closed() -> None:
    imported = {name: own_imports(name, path) for name, path in modules().items()}
    while leaves := {name for name, others in imported.items() if not others}:
        imported = {name: others - leaves for name, others in imported.items() if name not in leaves}
    assert not imported, "a circle is among these files, or above one"


def test_the_lower_floors_never_import_torch() -> None:
    files = modules()
    named = {name for name in files if folder_of(name) in WITHOUT_TORCH} | FILES_WITHOUT_TORCH
    for name in named:
        assert not any(other.split(".")[0] == "torch" for other in imports_of(files[name])), name


def test_nothing_unsafe_is_called() -> None:
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if (name, called) == (
                    "hub.imports.pickle_child",
                    "torch.load",
                ):  # restricted, in its own process
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
