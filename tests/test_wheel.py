"""What is built from a clone works by itself: nothing of it is found in the clone."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, and the libraries of this one, but not the clone."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT)
    venv.create(folder / "fresh", with_pip=False)
    python = next((folder / "fresh").glob("[bS]*/python*"))
    libraries = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (libraries / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    run(*pip, "--python", python, "install", "--no-deps", next(folder.glob("*.whl")))
    return python.parent


@pytest.mark.slow
def test_a_wheel_trains_and_knows_its_recipes_and_pages(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    where = run(installed / "python", "-c", "import yanmo; print(yanmo.__file__)")
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert (Path(where.strip()).parent / "server/page/main.js").is_file()
    assert "gpt2" in run(installed / "yanmo", "train", "doupo", "--dry-run")
    shape = ("model.n_layer=1", "model.n_embd=16", "model.n_head=2", "train.batch_size=2")
    assert run(installed / "yanmo", "quickstart", "train.max_steps=2", *shape)
    assert "prose" in run(installed / "yanmo", "crawl", "prose", "--help")
    Path("a.txt").write_text("第一回 雪夜\n他来了。\n", encoding="utf-8")
    run(installed / "yanmo", "inspect", "a.txt", "--html", "report.html")
    assert "a.txt" in Path("report.html").read_text(encoding="utf-8")
