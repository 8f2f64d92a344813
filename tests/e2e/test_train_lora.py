"""``train lora`` on a throw-away model: pictures first, an adapter that works, resuming bit by bit,
and one sentence for everything that cannot be used."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from flythrough.cameras.formats.colmap import ColmapModel, write_model
from flythrough.media.image import read_photo
from flythrough.media.video import read_video, write_video
from flythrough.models.adapter_origin import adapter_origin
from flythrough.models.lora_files import read_lora
from flythrough.rollout import store
from flythrough.training.loop import Loop, Record
from throwaway import SIZE, Command

ROOT = Path(__file__).parents[2]
FRAMES = 70
RANK = 4


class TakenAwayError(BaseException):
    """Stands for a process that is killed: nothing may be tidied up on its account."""


def write_clip_folder(folder: Path, frames: int = FRAMES) -> Path:
    """A wall with waves on it, 4 units away, and a camera that moves right along it."""
    folder.mkdir(parents=True)
    height, width = SIZE
    focal, depth, pace = 100.0, 4.0, 0.04
    rows, columns = np.mgrid[0:height, 0:width]
    shown = []
    for n in range(frames):
        x = (columns - width / 2) * depth / focal + pace * n
        y = (rows - height / 2) * depth / focal
        waves = [np.sin(5 * x + 2 * y), np.cos(4 * x), np.sin(3 * y + x)]
        shown.append((np.stack(waves, -1) * 90 + 128).astype(np.uint8))
    write_video(folder / "frames.mp4", shown, 16.0)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 0, 3] = pace * np.arange(frames)
    matrix = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    np.savez(
        folder / "cameras.npz",
        camera_poses=poses,
        intrinsics=np.tile(matrix, (frames, 1, 1)),
        size=np.array(SIZE),
        unit=np.array("metre"),
    )
    np.savez(folder / "depth.npz", depth=np.full((frames, *SIZE), depth, np.float32))
    (folder / "caption.txt").write_text("a wavy wall\n")
    return folder


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip_folder(tmp_path_factory.mktemp("clips") / "wall")


def words(data: Path, folder: Path, model: Path, *more: object) -> list[object]:
    return ["train", "lora", data, "-o", folder, "--model", model, "--rank", RANK, *more]


@pytest.fixture(scope="module")
def unbroken(wall: Path, visible_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps over four windows."""
    from flythrough.cli.main import run

    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    more = ("--steps", 6, "--items", 4, "--save-every", 2, "--sample-every", 3)
    more = (*more, "--learning-rate", 0.01)
    assert run([*map(str, words(wall, folder, visible_model, *more))]) == 0
    return folder


def test_the_commands_of_the_page_run(
    visible_model: Path,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flythrough: Command,
) -> None:
    """docs/training.md as it stands, but with a smaller model, size and number of steps."""
    page = (ROOT / "docs/training.md").read_text()
    ((block,),) = [re.findall(r"<!-- tested -->\n```bash\n(.*?)```", page, flags=re.DOTALL)]
    model = ["--model", visible_model]
    smaller = {
        "world": ["--size", f"{SIZE[0]}x{SIZE[1]}"],
        "train": [*model, "--steps", 1, "--items", 1],
        "generate": model,
    }
    shutil.copy(photo, tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    for line in block.splitlines():
        program, *given = shlex.split(line)
        assert program == "flythrough"
        answer = flythrough(*given, *smaller[given[0]])
        assert answer.status == 0, answer.err
    assert len(read_video(tmp_path / "out.mp4").frames) == 33


def test_what_a_run_leaves(unbroken: Path) -> None:
    for number in range(4):
        assert read_photo(unbroken / "previews" / f"batch-{number:03d}.png").size[1] > 6 * SIZE[1]
    log = [json.loads(line) for line in (unbroken / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    assert {p.name for p in (unbroken / "samples").iterdir()} == {
        "step-000003.png",
        "step-000006.png",
    }
    assert (unbroken / "loss.svg").read_text().startswith("<svg")
    report = json.loads((unbroken / "report.json").read_text())
    figures = report["figures"]
    assert figures["loss_after"] != figures["loss_before"]
    assert figures["seen"] > 0.5
    assert figures["psnr_warp"] > 20  # exact depth: the warp is the truth but for resampling
    assert "data:image/png" in (unbroken / "report.html").read_text()


def test_the_adapter_says_what_it_is_and_generate_takes_it(
    unbroken: Path, visible_model: Path, photo: Path, flythrough: Command, tmp_path: Path
) -> None:
    adapter = unbroken / "lora" / "camera.safetensors"
    origin, lora = adapter_origin(adapter), read_lora(adapter)
    assert (origin.band, origin.layers, origin.width) == ("short", 2, 64)
    assert (lora.rank, lora.alpha) == (RANK, RANK)
    assert lora.metadata["trigger"] == "camctl23x."
    assert any(bool(v.any()) for name, v in lora.state.items() if "lora_B" in name)
    common = ["generate", photo, "--camera", "truck right 0.1", "--frames", 33]
    common += ["--model", visible_model, "--seed", 3]
    made = {}
    for name in (adapter, "off"):
        rollout = tmp_path / Path(str(name)).stem
        answer = flythrough(*common, "--lora", name, "--rollout", rollout, "-o", tmp_path / "a.mp4")
        assert answer.status == 0, answer.err
        made[name] = store.load(rollout).chunks[0].latents
    assert not np.array_equal(made[adapter], made["off"])
    wrong = flythrough(*common, "--lora", adapter, "--warp-band", "patch-mid", "-o", "b.mp4")
    assert wrong.status == 2
    assert "trained for --warp-band short" in wrong.err


def test_a_killed_run_ends_with_the_same_bits(
    unbroken: Path,
    wall: Path,
    visible_model: Path,
    tmp_path: Path,
    flythrough: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped between two checkpoints, and once more while items were prepared."""
    from flythrough.training.lora import prepare

    more = ("--steps", 6, "--items", 4, "--save-every", 2, "--learning-rate", 0.01)
    command = words(wall, tmp_path / "run", visible_model, *more)
    write = prepare.write_item

    def cut(file: Path, item: object) -> None:
        if file.name == "000003.safetensors":
            raise TakenAwayError
        write(file, item)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare, "write_item", cut)
    with pytest.raises(TakenAwayError):
        flythrough(*command)
    monkeypatch.setattr(prepare, "write_item", write)
    after = Loop._after_step

    def stop(self: Loop, record: Record, on_record: object) -> None:
        after(self, record, on_record)  # type: ignore[arg-type]
        if record.step == 5:
            raise TakenAwayError

    monkeypatch.setattr(Loop, "_after_step", stop)
    with pytest.raises(TakenAwayError):
        flythrough(*command)
    assert not (tmp_path / "run" / "lora").exists()
    monkeypatch.setattr(Loop, "_after_step", after)
    answer = flythrough(*command)
    assert answer.status == 0, answer.err
    assert "goes on after step 4" in answer.err
    ours, theirs = (
        load_file(folder / "lora" / "camera.safetensors") for folder in (tmp_path / "run", unbroken)
    )
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
    steps = [json.loads(x)["step"] for x in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]
    other = flythrough(*command, "--seed", 7)
    assert other.status == 2
    assert "was started with seed = 42, not 7" in other.err


def test_a_dry_run_draws_and_ends(
    wall: Path, tiny_model: Path, tmp_path: Path, flythrough: Command
) -> None:
    """Poses and depth are estimated; the run that follows may have other settings."""
    folder = tmp_path / "run"
    video = wall / "frames.mp4"
    answer = flythrough(*words(video, folder, tiny_model, "--dry-run", "--steps", 2))
    assert answer.status == 0, answer.err
    assert answer.result["adapter"] is None
    assert "dB near their targets" in answer.err
    assert [Path(p).is_file() for p in answer.result["previews"]] == [True, True]
    assert {p.name for p in folder.iterdir()} <= {"previews", "geometry", ".lock"}
    kept = {p.name: p.stat().st_mtime_ns for p in (folder / "geometry").iterdir()}
    more = ("--steps", 1, "--band", "patch-mid", "--seed", 5)
    answer = flythrough(*words(video, folder, tiny_model, *more))
    assert answer.status == 0, answer.err
    assert {p.name: p.stat().st_mtime_ns for p in (folder / "geometry").iterdir()} == kept
    assert adapter_origin(folder / "lora" / "camera_patch_mid.safetensors").band == "patch_mid"


def test_cameras_of_colmap_count_in_the_unit_of_the_depth_beside_them(
    wall: Path, tiny_model: Path, tmp_path: Path, flythrough: Command
) -> None:
    with np.load(wall / "cameras.npz") as known:
        poses, matrices = known["camera_poses"], known["intrinsics"]
    names = [f"{n}.jpg" for n in range(len(poses))]
    points, colours = np.array([[0.0, 0, 9]] * 9), np.zeros((9, 3), np.uint8)
    (tmp_path / "sparse").mkdir()
    model = ColmapModel(poses, matrices, SIZE, names, points, colours)
    write_model(tmp_path / "sparse", model)
    more = ["--camera", tmp_path / "sparse", "--depth", wall / "depth.npz", "--dry-run"]
    answer = flythrough(*words(wall / "frames.mp4", tmp_path / "run", tiny_model, *more))
    assert answer.status == 0, answer.err
    assert "dB near their targets" in answer.err
    (tmp_path / "empty").mkdir()
    more[1] = tmp_path / "empty"
    answer = flythrough(*words(wall / "frames.mp4", tmp_path / "two", tiny_model, *more))
    assert answer.status == 2
    assert "without a COLMAP model" in answer.err


def test_a_published_list_with_the_published_recipe(
    wall: Path, tiny_model: Path, tmp_path: Path, flythrough: Command
) -> None:
    frames = read_video(wall / "frames.mp4").frames
    for name, count in (("one", 33), ("two", 40)):
        write_video(tmp_path / f"{name}.mp4", frames[:count], 16.0)
    data = tmp_path / "data.csv"
    data.write_text('video_path,prompts\none.mp4,"a wall, from the left"\ntwo.mp4,the same\n')
    answer = flythrough(*words(data, tmp_path / "run", tiny_model, "--reference", "--steps", 2))
    assert answer.status == 0, answer.err
    assert "threshold 0.5" in answer.err
    names = sorted(p.name[:11] for p in (tmp_path / "run" / "geometry").iterdir())
    assert names == ["000-forward", "000-reverse", "001-forward", "001-reverse"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--frame-stride", 3), "has 70 frames (24 with the stride that was given)"),
        (("--camera", "SHORT"), "has 12 cameras but the clip"),
        (("--poses", "features"), "--poses features has no effect on cameras that are given"),
        (("--size", "100x128"), "height 100 must be a multiple of 64"),
        (("--rank", 65), "--rank 65 is more than the 64 channels"),
        (("--rank", 0), "--rank 0 is out of range"),
        (("--prompt-column", "text"), "--prompt-column text has no effect on a single clip"),
        (("--learning-rate", 2), "--learning-rate 2 is out of range"),
        (("--steps", 0), "--steps 0 is out of range"),
        (("--model", "nowhere"), "There is no model 'nowhere'"),
        (("--device", "cuda:99"), "is not available here"),
    ],
)
def test_bad_input_is_refused(
    more: tuple[object, ...],
    sentence: str,
    wall: Path,
    tiny_model: Path,
    tmp_path: Path,
    flythrough: Command,
) -> None:
    np.savez(tmp_path / "short.npz", camera_poses=np.tile(np.eye(4), (12, 1, 1)))
    given = [tmp_path / "short.npz" if word == "SHORT" else word for word in more]
    common = ["train", "lora", wall, "-o", tmp_path / "run"]
    if "--model" not in given:
        common += ["--model", tiny_model]
    answer = flythrough(*common, *given)
    assert answer.status == 2, answer.err
    assert sentence in answer.err
    assert not (tmp_path / "run").exists()


def test_bad_data_is_refused(
    wall: Path, tiny_model: Path, tmp_path: Path, flythrough: Command
) -> None:
    empty, data = tmp_path / "empty", tmp_path / "data.csv"
    empty.mkdir()
    data.write_text("video,prompt\nnone.mp4,a wall\n")
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare, ignore=shutil.ignore_patterns("geometry"))
    short = tmp_path / "short.mp4"
    write_video(short, read_video(wall / "frames.mp4").frames[:32], 16.0)
    depth = tmp_path / "depth.npz"
    np.savez(depth, depth=np.ones((3, *SIZE), np.float32))
    camera = wall / "cameras.npz"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    cases: list[tuple[Path, list[object], str]] = [
        (tmp_path / "none.mp4", [], "There is no training data"),
        (empty, [], "holds neither frames.mp4 nor pictures"),
        (data, [], "none.mp4 of the list"),
        (data, ["--prompt-column", "words"], "no column 'words'"),
        (data, ["--camera", camera], "--camera"),
        (short, [], "has 32 frames, but training needs at least 33"),
        (wall / "frames.mp4", ["--depth", depth], "has no effect without cameras"),
        (wall / "frames.mp4", ["--depth", depth, "--camera", camera], "one map a frame"),
        (wall / "frames.mp4", ["--model", bare], "ships no geometry network"),
        (wall, ["-o", tmp_path / "other"], "holds other files"),
    ]
    for source, more, sentence in cases:
        common: list[object] = ["train", "lora", source]
        common += [] if "-o" in more else ["-o", tmp_path / "run"]
        common += [] if "--model" in more else ["--model", tiny_model]
        answer = flythrough(*common, *more)
        assert (answer.status, sentence in answer.err) == (2, True), answer.err
        assert not (tmp_path / "run").exists()
