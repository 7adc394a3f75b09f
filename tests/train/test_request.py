"""What the words of a command mean: a recipe and a run folder."""

from pathlib import Path

import pytest

from yanmo.train.request import asked_finetuning


@pytest.mark.parametrize(
    ("words", "method"),
    [
        (("base", "novel.txt"), "full"),
        (("novel_lora", "base", "novel.txt"), "lora"),
        (("own.toml", "base", "novel.txt"), "last"),
        (("own.toml", "base", "novel.txt", "finetune.method=full"), "full"),
        (("base", "novel.txt", "finetune.method=lora", "finetune.rank=4"), "lora"),
    ],
)
def test_which_weights_are_trained_is_what_the_command_or_else_the_recipe_says(
    words: tuple[str, ...], method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("novel.txt").write_text("春风夜雨" * 50, encoding="utf-8")
    Path("own.toml").write_text('[finetune]\nmethod = "last"\n', encoding="utf-8")
    recipe, folder = asked_finetuning(words, None, Path)
    assert (recipe.finetune.method, recipe.model.init, recipe.corpus.path) == (method, "base", ("novel.txt",))
    assert folder == Path("runs/base-novel")
