from pathlib import Path

import huggingface_hub
import pytest

from tests.makers.models import char_tokenizer, gpt2_chinese_folder, our_folder, reader
from yanmo.core.console import Console
from yanmo.core.errors import CheckpointError
from yanmo.hub.imports.importer import import_
from yanmo.settings.schema import TokenizerConfig

pytestmark = pytest.mark.slow


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub that serves one folder, and counts what it is asked for."""
    folder = tmp_path / "snapshot"
    asked: list[list[str]] = []

    def snapshot(name: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(folder)

    def one_file(name: str, file: str) -> str:
        if not (folder / file).is_file():
            raise huggingface_hub.errors.EntryNotFoundError(file)
        return str(folder / file)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", one_file)
    yield folder  # type: ignore[misc]
    assert all("*" not in pattern.replace("model-*", "") for patterns in asked for pattern in patterns)
    assert ["pytorch_model.bin" in patterns for patterns in asked] in ([], [False], [False, True])


def test_a_name_on_the_hub_is_fetched_and_taken_over(hub: Path, console: Console) -> None:
    our_folder(hub, reader(), char_tokenizer())
    found = import_("somebody/small-gpt2", Path("taken"), TokenizerConfig(), console)
    assert found.proof is not None
    assert Path("taken/model.safetensors").exists()


def test_pickled_weights_are_fetched_only_where_there_are_no_others(hub: Path, console: Console) -> None:
    gpt2_chinese_folder(hub, reader())
    char_tokenizer().save(hub, 64)
    import_("somebody/old-gpt2", Path("taken"), TokenizerConfig(), console)
    assert Path("taken/model.safetensors").exists()


def test_without_a_connection_it_says_so(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, allow_patterns: list[str]) -> str:
        raise OSError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(
        CheckpointError, match="could not be downloaded from the hub: no connection"
    ) as caught:
        import_("gpt2", Path("taken"), TokenizerConfig(), console)
    assert "HF_ENDPOINT" in caught.value.hint
