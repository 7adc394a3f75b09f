import json
from pathlib import Path

from yanmo.train.metrics import METRICS, SUPERSEDED, Metrics, read_metrics, rewind


def test_rows_are_flat_json_lines(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        metrics.write("train", step=1, loss=0.5)
        metrics.write("eval", step=1, note="第一\u2028行")
    lines = (tmp_path / METRICS).read_bytes().split(b"\n")
    assert len(lines) == 3
    assert [json.loads(line)["event"] for line in lines[:2]] == ["train", "eval"]


def test_only_rank_0_writes(tmp_path: Path) -> None:
    Metrics(tmp_path, is_main=False).write("train", step=1)
    assert list(tmp_path.iterdir()) == []


def test_rewinding_moves_later_rows_and_a_torn_line_and_loses_none(tmp_path: Path) -> None:
    rows = [
        {"event": "start"},
        *({"event": "train", "step": s, "loss_hex": "0x1p+1"} for s in range(1, 6)),
        {"event": "end", "step": 5},
    ]
    lines = [json.dumps(row).encode() + b"\n" for row in rows]
    (tmp_path / METRICS).write_bytes(b"".join(lines) + b'{"event": "tra')
    rewind(tmp_path, 3)
    assert [row.get("step") for row in read_metrics(tmp_path)] == [None, 1, 2, 3]
    assert (tmp_path / SUPERSEDED).read_bytes() == b"".join(lines[4:]) + b'{"event": "tra\n'
    rewind(tmp_path, 3)
    assert len(read_metrics(tmp_path)) == 4


def test_a_reader_passes_over_a_torn_last_line(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_bytes(b'{"event": "start"}\n{"ev')
    assert read_metrics(tmp_path) == [{"event": "start"}]


def test_numbers_also_go_to_tensorboard(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        metrics.write("train", step=1, loss=0.5)
    assert list((tmp_path / "tensorboard").iterdir())
