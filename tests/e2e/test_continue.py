"""Runs that stop, go on, turn back: the rollout laws through the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flythrough.cli.main import run
from flythrough.engine.request import GenerateRequest, check
from flythrough.engine.run import advance, start_job
from flythrough.media.video import read_video
from flythrough.models.catalog import find_model
from flythrough.rollout import store
from throwaway import Answer, Command

PATH = "forward 0.2; pan left 10deg; orbit right 10deg"


class StoppedError(Exception):
    """Stands for whatever ends a run from outside."""


@pytest.fixture
def request_of(tiny_model: Path, photo: Path, tmp_path: Path) -> GenerateRequest:
    return GenerateRequest(
        image=photo,
        camera=PATH,
        model=str(tiny_model),
        frames=90,
        seed=5,
        output=tmp_path / "out.mp4",
        rollout=tmp_path / "run",
    )


def generate(flythrough: Command, model: Path, photo: Path, folder: Path, *more: object) -> Answer:
    words = ["generate", photo, "--camera", PATH, "--model", model, "--frames", 90, "--seed", 5]
    answer = flythrough(*words, "--rollout", folder, "-o", folder.with_suffix(".mp4"), *more)
    assert answer.status == 0, answer.err
    return answer


def test_stopped_run_goes_on_bit_for_bit(
    flythrough: Command,
    request_of: GenerateRequest,
    tiny_model: Path,
    photo: Path,
    tmp_path: Path,
) -> None:
    whole = generate(flythrough, tiny_model, photo, tmp_path / "whole").result["digest"]

    def stop(index: int, label: str, share: float) -> None:
        if index == 1 and label == "denoise" and share > 0.5:
            raise StoppedError

    job = start_job(check(request_of), lambda _text: None)
    with pytest.raises(StoppedError):
        for _ in advance(job, stop):
            pass
    assert len(store.load(tmp_path / "run").chunks) == 1
    assert not (tmp_path / "out.mp4").exists()
    answer = flythrough("continue", tmp_path / "run")
    assert answer.status == 0, answer.err
    assert answer.result["digest"] == whole
    np.testing.assert_array_equal(
        read_video(tmp_path / "out.mp4").frames, read_video(tmp_path / "whole.mp4").frames
    )


def test_killed_process_loses_at_most_the_chunk_in_flight(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    whole = generate(flythrough, tiny_model, photo, tmp_path / "whole").result["digest"]
    folder = tmp_path / "run"
    code = "import torch; torch.set_num_threads(1); from flythrough.cli.main import main; main()"
    words = ["generate", photo, "--camera", PATH, "--model", tiny_model, "--frames", 90]
    words += ["--seed", 5, "--rollout", folder, "-o", tmp_path / "out.mp4"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not any(folder.glob("chunks/[0-9]*.safetensors")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out.mp4").exists()
    assert len(store.load(folder).chunks) < 3
    answer = flythrough("continue", folder)
    assert answer.status == 0, answer.err
    assert answer.result["digest"] == whole
    assert read_video(tmp_path / "out.mp4").frames.shape[0] == 90
    assert not list(folder.rglob("*.partial*"))


def test_rewind_then_continue_repeats_the_run(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    whole = generate(flythrough, tiny_model, photo, folder).result["digest"]
    back = flythrough("rewind", folder, "--chunks", 2)
    assert back.status == 0
    assert back.result["chunks"] == 1
    assert flythrough("continue", folder).result["digest"] == whole
    assert flythrough("rewind", folder, "--chunks", 3).result["frames"] == 0
    assert flythrough("continue", folder).result["digest"] == whole


def test_new_leg_starts_at_the_last_camera(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / "run", tmp_path / "longer.mp4"
    generate(flythrough, tiny_model, photo, folder)
    before = store.load(folder)
    words = ["--camera", "backward 0.2", "--frames", 20, "--prompt", "dusk", "-o", out]
    answer = flythrough("continue", folder, *words)
    assert answer.status == 0, answer.err
    assert answer.result["frames"] == 99 + 20
    assert "runs to the end of its last chunk" in answer.err
    after = store.load(folder)
    assert after.kept(3).digest() == before.digest()
    request = after.chunks[3].request
    assert request.prompt == "dusk"
    assert request.world_from_camera is not None
    last = before.last_camera()
    assert last is not None
    step = np.linalg.norm(request.world_from_camera[0, :3, 3] - last[0][:3, 3])
    assert 0 < step < 0.1
    assert flythrough("rewind", folder, "--chunks", 1).status == 0
    assert flythrough("continue", folder, "-o", out).result["digest"] == after.digest()


def test_prompt_alone_holds_the_camera_and_says_so(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    generate(flythrough, tiny_model, photo, folder)
    answer = flythrough("continue", folder, "--prompt", "snow")
    assert "the camera stands still" in answer.err
    request = store.load(folder).chunks[3].request
    assert request.world_from_camera is not None
    assert (request.world_from_camera == request.world_from_camera[:1]).all()


def test_text_started_run_continues(flythrough: Command, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["generate", "--prompt", "a lake", "--model", tiny_model, "--frames", 66]
    whole = flythrough(*words, "--rollout", folder, "-o", tmp_path / "out.mp4").result["digest"]
    flythrough("rewind", folder, "--chunks", 1)
    assert flythrough("continue", folder).result["digest"] == whole
    assert flythrough("continue", folder, "--prompt", "a river").result["frames"] == 99


def test_warp_led_run_continues_from_its_files(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    warp, folder, out = tmp_path / "warp.mp4", tmp_path / "run", tmp_path / "out.mp4"
    words = ["generate", photo, "--model", tiny_model, "--frames", 60, "-o", out]
    flythrough(*words, "--camera", PATH, "--save-warp", warp)
    whole = flythrough(*words, "--warp", warp, "--rollout", folder).result["digest"]
    flythrough("rewind", folder, "--chunks", 1)
    assert flythrough("continue", folder).result["digest"] == whole
    assert "pre-rendered warp" in flythrough("continue", folder, "--camera", PATH).err
    flythrough("rewind", folder, "--chunks", 1)
    flythrough(*words, "--camera", "static", "--save-warp", warp)
    changed = flythrough("continue", folder)
    assert changed.status == 2
    assert "changed since the rollout was started" in changed.err
    warp.unlink()
    assert flythrough("continue", folder).status == 2


def test_changed_weights_or_files_are_refused(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    model, folder, depth = tmp_path / "model", tmp_path / "run", tmp_path / "depth.npy"
    shutil.copytree(tiny_model, model)
    np.save(depth, np.full((96, 192), 2.0, np.float32))
    generate(flythrough, model, photo, folder, "--geometry", depth)
    flythrough("rewind", folder, "--chunks", 1)
    np.save(depth, np.full((96, 192), 3.0, np.float32))
    assert "missing or changed" in flythrough("continue", folder).err
    np.save(depth, np.full((96, 192), 2.0, np.float32))
    weights = model / "lora" / "camera.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    answer = flythrough("continue", folder)
    assert answer.status == 2
    assert "weights changed" in answer.err


def test_damaged_chunk_is_named_and_can_be_dropped(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    whole = generate(flythrough, tiny_model, photo, folder).result["digest"]
    newest = sorted(folder.glob("chunks/*.safetensors"))[-1]
    os.truncate(newest, 100)
    damaged = flythrough("continue", folder, "--camera", "static")
    assert damaged.status == 2
    assert newest.name in damaged.err
    assert flythrough("rewind", folder, "--chunks", 1).status == 0
    assert flythrough("continue", folder).result["digest"] == whole


def test_refused_continuation_leaves_the_folder_as_it_was(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    generate(flythrough, tiny_model, photo, folder, "--geometry", "flat")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for words in (
        [],
        ["--frames", 33],
        ["--camera", "sideways 3"],
        ["--camera", "forward 1m"],
        ["--camera-convention", "opengl"],
        ["--camera", "static", "--camera-convention", "opengl"],
        ["--camera", "static", "--frames", 0],
        ["--camera", "static", "-o", tmp_path / "none" / "out.mp4"],
        ["--camera", "static", "--device", "abacus"],
    ):
        answer = flythrough("continue", folder, *words)
        assert answer.status == 2, words
        assert answer.err.count("\n") == 1, answer.err
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "plan.json").write_text(
        json.dumps({"format": "flythrough-plan", "version": 1, "plan": {"legs": 3}})
    )
    assert "plan is damaged" in flythrough("continue", folder).err


def test_a_lost_video_is_written_again_without_a_model(
    flythrough: Command,
    tiny_model: Path,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run may die while its video is written, when every chunk is stored already."""
    made = generate(flythrough, tiny_model, photo, tmp_path / "run").result["digest"]
    video = tmp_path / "run.mp4"
    frames = read_video(video).frames
    video.unlink()
    monkeypatch.setattr("flythrough.engine.build.load_model", lambda *_: pytest.fail("loaded"))
    answer = flythrough("continue", tmp_path / "run")
    assert answer.status == 0, answer.err
    assert answer.result["digest"] == made
    assert np.array_equal(read_video(video).frames, frames)
    assert "complete already (90 frames); give --camera PATH to make it longer" in answer.err
    said = flythrough("continue", tmp_path / "run")
    assert said.status == 2
    assert "is complete already" in said.err
    assert run(["continue", str(tmp_path / "run"), "-o", str(tmp_path / "again.mp4")]) == 0
    assert "90 frames, 3 chunks, written from what was made before" in capsys.readouterr().out
    other = flythrough("continue", tmp_path / "run", "-o", tmp_path / "other.mp4")
    assert other.status == 0, other.err
    assert flythrough("continue", tmp_path / "run").status == 2  # nothing is left to do


def test_a_run_killed_before_its_first_file_counts_starts_anew(
    request_of: GenerateRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(store, "_write_manifest", killed)
        with pytest.raises(StoppedError):
            start_job(check(request_of), print)
    assert request_of.rollout is not None
    job = start_job(check(request_of), print)
    assert store.read_plan(request_of.rollout) == job.plan.to_dict()


def test_a_changed_configuration_is_another_model(tiny_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    before = find_model(str(copy)).digest()
    config = copy / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.333", "0.1", 1))
    assert find_model(str(copy)).digest() != before
