"""Commands that are printed: they can be pasted."""

import sys
from pathlib import Path

import pytest

from yanmo.core.commands import as_command, install_command, short_path


def test_next_commands_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert as_command(["yanmo", "-p", "江 湖"]) == "yanmo -p '江 湖'"
    monkeypatch.setattr("yanmo.core.commands.os.name", "nt")
    assert as_command(["yanmo", "runs\\novel", "-p", "江 湖"]) == 'yanmo runs\\novel -p "江 湖"'

    def another_drive(path: str) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr("yanmo.core.commands.os.path.relpath", another_drive)
    assert short_path("D:\\venv\\yanmo.exe") == "D:\\venv\\yanmo.exe"


def test_an_extra_is_installed_beside_the_yanmo_that_misses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(Path(".venv/bin/python").absolute()))
    assert install_command("serve") == '.venv/bin/python -m pip install "yanmo[serve]"'
    monkeypatch.setattr(sys, "executable", str(Path("my venv/bin/python").absolute()))
    assert install_command("serve") == "'my venv/bin/python' -m pip install \"yanmo[serve]\""
