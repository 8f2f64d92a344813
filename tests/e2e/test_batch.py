"""``flythrough batch`` on a throw-away model: combinations, resuming, refusals, kills."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

import flythrough as ft
from flythrough.engine import build, run
from flythrough.engine.batch_record import read_records
from flythrough.media.video import read_video
from flythrough.rollout import store
from flythrough.rollout.lock import LOCK
from throwaway import Answer, Command

KILL_TIME = 240  # a busy machine may need minutes to load libraries

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.fixture
def workplace(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a photo, in which the command runs."""
    (tmp_path / "photo.png").write_bytes(photo.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_file(*rows: dict[str, Any]) -> str:
    Path("list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "list.jsonl"


def results(answer: Answer) -> dict[str, dict[str, Any]]:
    """Results by id; the sum is under an empty id."""
    return {line.get("id", ""): line for line in map(json.loads, answer.out.splitlines())}


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_list_becomes_videos_records_and_a_sheet(
    flythrough: Command, tiny_model: Path, workplace: Path
) -> None:
    Path("list.csv").write_text(
        "id,image,camera,prompt,seed,frames\n"
        "walk,photo.png,forward 0.2|pan left 10deg,,1|2,40\n"
        "still,photo.png,,a hill,,\n"
    )
    words = ["batch", "list.csv", "-o", "out", "--model", tiny_model]
    answer = flythrough(*words, "--frames", 8)
    assert answer.status == 0, answer.err
    jobs = [f"walk-camera{c}-seed{s}" for c in (1, 2) for s in (1, 2)] + ["still"]
    assert names(workplace / "out") == {
        *(f"{job}.mp4" for job in jobs),
        *("results.jsonl", "contact.png", LOCK),
    }
    said = results(answer)
    assert [said[job]["frames"] for job in jobs] == [40, 40, 40, 40, 8]
    assert {said[job]["status"] for job in jobs} == {"made"}
    assert len({said[job]["digest"] for job in jobs}) == 5
    assert said[""] == {
        "folder": "out",
        "made": 5,
        "kept": 0,
        "failed": 0,
        "contact": "out/contact.png",
    }
    records = read_records(Path("out"))
    assert list(records) == jobs
    assert records["still"].request == {
        "model": str(tiny_model),
        "image": str(workplace / "photo.png"),
        "prompt": "a hill",
        "frames": 8,
    }
    clip = read_video(Path("out/walk-camera2-seed1.mp4"))
    assert clip.frames.shape == (40, 64, 128, 3)
    assert clip.metadata["flythrough"] == records["walk-camera2-seed1"].digest


def test_a_video_of_a_list_equals_the_one_made_alone(flythrough: Command, tiny_model: Path) -> None:
    """Also when the model served other photos, paths and prompts before."""
    shared = {"image": "photo.png", "frames": 40}
    lines = [
        {"id": "a", "camera": "forward 0.2", **shared},
        {"id": "b", "camera": "orbit left 8deg", "prompt": "a lake", "seed": 5, **shared},
        {"id": "c", "prompt": "a lake", "frames": 33},
        {"id": "d", "camera": "orbit left 8deg", "geometry": "flat", **shared},
    ]
    batch = flythrough("batch", rows_file(*lines), "-o", "out", "--model", tiny_model)
    assert batch.status == 0, batch.err
    assert "note: d: geometry flat: only the photo is kept" in batch.err
    for line in lines:
        options = {f"--{k}": v for k, v in line.items() if k not in ("id", "image")}
        words = [word for pair in options.items() for word in pair]
        image = [line["image"]] if "image" in line else []
        alone = flythrough("generate", *image, *words, "--model", tiny_model, "-o", "alone.mp4")
        assert alone.status == 0, alone.err
        assert results(batch)[str(line["id"])]["digest"] == alone.result["digest"]
        ours, single = (Path(p).read_bytes() for p in (f"out/{line['id']}.mp4", "alone.mp4"))
        assert ours == single


def test_a_model_is_loaded_once_for_the_rows_it_serves(
    flythrough: Command, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    real = build.load_model

    def counted(*arguments: Any, **named: Any) -> Any:
        loads.append("load")
        return real(*arguments, **named)

    monkeypatch.setattr(build, "load_model", counted)
    warp = ["generate", "photo.png", "--camera", "static", "--model", tiny_model, "--frames", 8]
    assert flythrough(*warp, "--save-warp", "w.mp4", "-o", "o.mp4").status == 0
    loads.clear()
    cameras = {"image": "photo.png", "camera": ["forward 0.1", "static"], "frames": 8}
    warps = {"image": "photo.png", "warp": "w.mp4", "frames": 8}
    lines = [
        {"id": "c1", **cameras, "size": "64x64"},
        {"id": "h1", "prompt": "a hill", "frames": 8},
        {"id": "c2", **cameras, "seed": 3},
        {"id": "w1", **warps},
        {"id": "h2", "prompt": "a lake", "frames": 33},
        {"id": "w2", **warps, "warp_mask": "w.mp4"},
    ]
    answer = flythrough("batch", rows_file(*lines), "-o", "out", "--model", tiny_model)
    assert answer.status == 0, answer.err
    assert len(loads) == 1  # adapters and warps are exchanged, the model stays
    made = [job for job in results(answer) if job]
    assert made == ["c2-camera1", "c2-camera2", "c1-camera1", "c1-camera2", "h1", "h2", "w1", "w2"]
    said = results(answer)
    assert said["w1"]["digest"] != said["w2"]["digest"]
    alone = flythrough(
        "generate",
        "photo.png",
        "--warp",
        "w.mp4",
        "--warp-mask",
        "w.mp4",
        "--frames",
        8,
        "--model",
        tiny_model,
        "-o",
        "alone.mp4",
    )
    assert alone.result["digest"] == said["w2"]["digest"]


def test_each_video_gets_its_own_notes(flythrough: Command, tiny_model: Path) -> None:
    row = {"id": "turn", "image": "photo.png", "camera": "pan right 170deg", "seed": [1, 2]}
    words = ["batch", rows_file(row), "-o", "out", "--model", tiny_model, "--frames", 33]
    answer = flythrough(*words)
    assert answer.status == 0, answer.err
    for name in ("turn-seed1", "turn-seed2"):
        assert f"note: {name}: chunk 1: some cameras see nothing" in answer.err


def test_only_what_is_missing_or_changed_is_made_again(
    flythrough: Command, tiny_model: Path
) -> None:
    def states(*rows: dict[str, Any]) -> list[str]:
        answer = flythrough("batch", rows_file(*rows), "-o", "out", "--model", tiny_model)
        assert answer.status == 0, answer.err
        return [results(answer)[row["id"]]["status"] for row in rows]

    one = {"id": "one", "image": "photo.png", "camera": "static", "frames": 8}
    two = {"id": "two", "prompt": "a lake", "frames": 8}
    assert states(one, two) == ["made", "made"]
    assert states(two, one) == ["kept", "kept"]
    assert states(one, {**two, "seed": 4}) == ["kept", "made"]
    assert states(one, two) == ["kept", "made"]
    Path("out/one.mp4").unlink()
    assert states(one, two) == ["made", "kept"]
    Path("out/two.mp4").write_bytes(Path("out/two.mp4").read_bytes()[:-100])
    assert states(one, two) == ["kept", "made"]
    pixels = np.array(Image.open("photo.png"))
    Image.fromarray(pixels[::-1]).save("photo.png")
    assert states(one, two) == ["made", "kept"]
    os.rename("photo.png", "moved.png")
    assert states({**one, "image": "moved.png"}, two) == ["kept", "kept"]


def test_kept_rollouts_can_be_continued(flythrough: Command, tiny_model: Path) -> None:
    row = {"id": "a", "image": "photo.png", "camera": "static", "frames": 33, "blend_chunks": 2}
    words = ["batch", rows_file({**row, "blend_chunks": 0}), "-o", "out", "--model", tiny_model]
    assert flythrough(*words).status == 0
    assert results(flythrough(*words, "--keep-rollouts"))["a"]["status"] == "made"
    assert results(flythrough(*words, "--keep-rollouts"))["a"]["status"] == "kept"
    rows_file(row)
    refused = flythrough(*words)
    assert refused.status == 2
    assert "has no effect without --keep-rollouts" in refused.err
    made = flythrough(*words, "--keep-rollouts")
    assert results(made)["a"]["status"] == "made", made.err
    folder = Path("out/rollouts/a")
    assert [path.name for path in folder.parent.iterdir()] == ["a"]
    assert store.load(folder).digest() == results(made)["a"]["digest"]
    video = Path("out/a.mp4").read_bytes()
    unnamed = flythrough("continue", folder, "--camera", "forward 0.1")
    assert unnamed.status == 2
    assert "names no output video" in unnamed.err
    more = flythrough("continue", folder, "--camera", "forward 0.1", "-o", "more.mp4")
    assert more.status == 0, more.err
    assert Path("out/a.mp4").read_bytes() == video


def test_every_faulty_row_is_listed_and_nothing_is_written(
    flythrough: Command, tiny_model: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "load_model", None)  # nobody may come that far
    good = {"image": "photo.png", "camera": "forward 0.2", "frames": 8}
    path = rows_file(
        {"id": "fine", **good},
        {"id": "verb", **good, "camera": "sideways 3"},
        {"id": "photo", **good, "image": "none.png"},
        {"id": "frames", **good, "frames": 0},
        {"id": "word", **good, "frames": "many"},
        {"id": "both", **good, "seed": [1, -1]},
        {"id": "fine", **good},
        {"id": "idle", **good, "anchor": "second"},
    )
    before = sorted(workplace.rglob("*"))
    answer = flythrough("batch", path, "-o", "out", "--model", tiny_model)
    assert answer.status == 2
    assert answer.out == ""
    first, *faults = answer.err.splitlines()
    assert first == "error: 7 faults in the list; nothing was made, correct it first:"
    starts = [re.match(r"  row (\d)( \([\w-]+\))?: ", fault) for fault in faults]
    assert [int(start[1]) for start in starts if start] == [2, 3, 4, 5, 6, 7, 8]
    assert all(fault.endswith((".", "?")) for fault in faults)
    assert sorted(workplace.rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        ["-o", "photo.png"],
        ["-o", "none/out"],
        ["-o", "out", "--device", "abacus"],
        ["-o", "out", "--memory", "offload", "--device", "cpu"],
        ["-o", "out", "--frames", "9"],
        ["-o", "out", "--size", "big"],
        ["-o", "foreign"],
        ["-o", "reads"],
        [],
    ],
    ids=" ".join,
)
def test_batches_that_cannot_begin(
    flythrough: Command, tiny_model: Path, workplace: Path, words: list[str]
) -> None:
    for folder in ("foreign", "reads"):
        (workplace / folder).mkdir()
    Path("foreign/results.jsonl").write_text('{"score": 3}\n')
    Path("reads/photo.mp4").write_bytes(b"x")
    row = {"id": "photo", "image": "photo.png", "camera": "static", "frames": 8}
    if "reads" in words:
        row = {"id": "photo", "video": "reads/photo.mp4", "frames": 8}
    path = rows_file(row)
    before = sorted(workplace.rglob("*"))
    answer = flythrough("batch", path, "--model", tiny_model, *words)
    assert answer.status == 2, answer.err
    assert answer.err.startswith("error: ")
    assert sorted(workplace.rglob("*")) == before


def test_refusals_of_a_list_load_no_torch() -> None:
    path = rows_file({"image": "photo.png", "camera": "sideways 3"})
    script = (
        "import sys; from flythrough.cli.main import run; "
        f"assert run(['batch', '{path}', '-o', 'out']) == 2; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_a_row_that_fails_on_the_way_does_not_stop_the_others(
    flythrough: Command, tiny_model: Path, workplace: Path
) -> None:
    import torch

    from flythrough.models.lora_files import save_lora

    layer = "blocks.0.attn1.to_q"
    sides = {"lora_A": torch.zeros(2, 8), "lora_B": torch.zeros(8, 2)}
    state = {f"{layer}.{side}.weight": value for side, value in sides.items()}
    save_lora(workplace / "other.safetensors", state, 2, 2.0)
    good = {"image": "photo.png", "camera": "static", "frames": 8}
    path = rows_file({"id": "bad", **good, "lora": "other.safetensors"}, {"id": "good", **good})
    words = ["batch", path, "-o", "out", "--model", tiny_model, "--keep-rollouts"]
    answer = flythrough(*words)
    assert answer.status == 1
    assert answer.err.splitlines()[-1].startswith("error: 1 of 2 videos could not be made")
    said = results(answer)
    assert (said["bad"]["status"], said["good"]["status"]) == ("failed", "made")
    assert said["bad"]["error"]
    assert set(read_records(Path("out"))) == {"good"}
    assert [path.name for path in Path("out/rollouts").iterdir()] == ["good"]


def test_stopping_leaves_nothing_half_written(
    flythrough: Command, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {"image": "photo.png", "camera": "static", "frames": 8}
    words = ["batch", rows_file({"id": "a", **good}, {"id": "b", **good, "seed": 2}), "-o", "out"]
    words += ["--model", tiny_model, "--keep-rollouts"]
    real = run.write_result

    def stopped(rollout: Any, plan: Any, output: Path) -> int:
        if output.name == "b.mp4":
            raise KeyboardInterrupt
        return real(rollout, plan, output)

    with monkeypatch.context() as patched:
        patched.setattr(run, "write_result", stopped)
        assert flythrough(*words).status == 130
    videos = {path.name for path in Path("out").iterdir()}
    assert videos == {LOCK, "a.mp4", "results.jsonl", "rollouts"}
    assert [path.name for path in Path("out/rollouts").iterdir()] == ["a"]
    again = results(flythrough(*words))
    assert (again["a"]["status"], again["b"]["status"]) == ("kept", "made")


def test_a_killed_batch_goes_on_where_it_stopped(
    flythrough: Command, tiny_model: Path, workplace: Path
) -> None:
    row = {"id": "s", "image": "photo.png", "camera": "forward 0.2", "frames": 66}
    words = ["batch", rows_file({**row, "seed": [1, 2, 3]}), "--model", tiny_model]
    words += ["--keep-rollouts"]
    whole = results(flythrough(*words, "-o", "whole"))
    code = "import torch; torch.set_num_threads(1); from flythrough.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words), "-o", "out"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + KILL_TIME
    under_way = Path("out/rollouts/.s-seed2.unfinished/chunks")
    while not any(under_way.glob("*.safetensors")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert set(read_records(Path("out"))) == {"s-seed1"}
    with Path("out/results.jsonl").open("ab") as file:
        file.write(b'{"id": "torn')
    Path("out/.0123456789abcdef.partial.mp4").write_bytes(b"half a video")
    again = flythrough(*words, "-o", "out")
    assert again.status == 0, again.err
    said = results(again)
    jobs = ["s-seed1", "s-seed2", "s-seed3"]
    assert [said[job]["status"] for job in jobs] == ["kept", "made", "made"]
    assert [said[job]["digest"] for job in jobs] == [whole[job]["digest"] for job in jobs]
    assert names(workplace / "out") == names(workplace / "whole")
    assert list(read_records(Path("out"))) == jobs


def test_two_batches_do_not_fill_one_folder(flythrough: Command, tiny_model: Path) -> None:
    Path("out").mkdir()
    path = rows_file({"prompt": "a hill", "frames": 8})
    with FileLock(Path("out") / LOCK):  # another object than that of the batch, as a process has
        answer = flythrough("batch", path, "-o", "out", "--model", tiny_model)
    assert answer.status == 2
    assert "Another process is filling out" in answer.err


def test_from_python(tiny_model: Path) -> None:
    seen: list[str] = []
    rows = [{"id": "a", "image": "photo.png", "camera": ["static", "forward 0.1"]}]
    made = ft.run_batch(
        rows, "out", model=str(tiny_model), frames=8, callback=lambda job, *_: seen.append(job.id)
    )
    assert [result.id for result in made] == ["a-camera1", "a-camera2"]
    assert {result.status for result in made} == {"made"}
    assert all(result.output is not None and result.output.is_file() for result in made)
    assert set(seen) == {"a-camera1", "a-camera2"}
    assert Image.open("out/contact.png").size[0] > 3 * 128
    again = ft.run_batch(rows, "out", model=str(tiny_model), frames=8)
    assert {result.status for result in again} == {"kept"}
    with pytest.raises(ft.InputError, match="row 1"):
        ft.run_batch([{"camera": "static"}], "out", model=str(tiny_model))
