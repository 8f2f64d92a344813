"""Layouts of published data sets, made small from a scene whose cameras and depth are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fake_scene import FakeRenderer
from PIL import Image

from flythrough.cameras import pose as se3
from flythrough.cameras.source import trajectory_from
from flythrough.errors import InputError
from flythrough.evaluation.benchmark import SuiteRequest
from flythrough.evaluation.datasets.clips import LAYOUTS, Dataset, DatasetRequest, check_dataset
from flythrough.evaluation.datasets.protocol import NAMES, protocol_of
from flythrough.evaluation.datasets.triangulation import landmarks
from flythrough.evaluation.truth import Case
from flythrough.media.fitting import default_intrinsics
from flythrough.media.video import write_video
from throwaway import Command

pytest.importorskip("cv2")

SIZE = (96, 160)
COUNT = 5
START = se3.compose(se3.translation(3, -1, 2), se3.exp([0, 0, 0, 0.1, -0.4, 0.2]))
"""Where the first camera of the made data sets stands in their worlds."""


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames, poses relative to the first, intrinsics."""
    k = default_intrinsics(*SIZE, 60.0)
    path = trajectory_from("truck right 0.12; pan left 3deg", COUNT, 16.0)
    poses = path.resolve(k, SIZE, 4.0).world_from_camera.copy()
    return FakeRenderer(14).views("wall", 5, poses, k, SIZE).rgb, poses, k


def written(folder: Path, frames: np.ndarray, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for frame, name in zip(frames, names, strict=True):
        Image.fromarray(frame).save(folder / name)


def re10k(data: Path, frames: np.ndarray, poses: np.ndarray, k: np.ndarray) -> str:
    times = [40_000 * index + 7 for index in range(COUNT)]
    written(data / "frames" / "test" / "0a1b", frames, [f"{time}.png" for time in times])
    height, width = SIZE
    inside = f"{k[0, 0] / width} {k[1, 1] / height} 0.5 0.5 0 0"
    rows = [
        f"{time} {inside} " + " ".join(map(str, se3.inverse(START @ pose)[:3].ravel()))
        for time, pose in zip(times, poses, strict=True)
    ]
    # One more camera whose frame nobody has.
    text = "\n".join(["https://video", *rows, rows[0].replace(str(times[0]), "999", 1)])
    (data / "RealEstate10K" / "test").mkdir(parents=True)
    (data / "RealEstate10K" / "test" / "0a1b.txt").write_text(text + "\n")
    return "0a1b"


def dl3dv(data: Path, frames: np.ndarray, poses: np.ndarray, k: np.ndarray) -> str:
    inner = data / "1K" / "5c3a" / "nerfstudio"
    names = [f"frame_{index:05d}.png" for index in range(1, COUNT + 1)]
    written(inner / "images_8", frames, names)
    gl = np.diag([1.0, -1, -1, 1])
    told = {
        "fl_x": 8 * k[0, 0], "fl_y": 8 * k[1, 1], "cx": 8 * k[0, 2], "cy": 8 * k[1, 2],
        "w": 8 * SIZE[1], "h": 8 * SIZE[0],
        "frames": [
            {"file_path": f"images/{name}", "transform_matrix": (START @ pose @ gl).tolist()}
            for name, pose in zip(names, poses, strict=True)
        ][::-1],
    }  # fmt: skip
    (inner / "transforms.json").write_text(json.dumps(told))
    return "5c3a"


def davis(data: Path, frames: np.ndarray, *_: np.ndarray) -> str:
    names = [f"{index:05d}" for index in range(COUNT)]
    written(data / "JPEGImages/480p/bear", frames, [f"{name}.jpg" for name in names])
    masks = np.zeros((COUNT, *SIZE), np.uint8)
    masks[:, :10] = 1
    written(data / "Annotations/480p/bear", masks, [f"{name}.png" for name in names])
    (data / "ImageSets/2017").mkdir(parents=True)
    (data / "ImageSets/2017/val.txt").write_text("bear\nmissing\n")
    return "bear"


def worldscore(data: Path, frames: np.ndarray, *_: np.ndarray) -> str:
    written(data / "static/photo/indoor/dining", frames[:1], ["000.png"])
    told = [
        {"image": "./static/photo/indoor/dining/000.png", "visual_movement": "static",
         "camera_path": ["push_in", "pan_left"], "prompt_list": ["a table", "a wall"]}
    ]  # fmt: skip
    (data / "static.json").write_text(json.dumps(told))
    return "photo-indoor-dining-000"


MAKERS = {"re10k": re10k, "dl3dv": dl3dv, "davis": davis, "worldscore": worldscore}
SPLITS = {"re10k": "test", "dl3dv": "1K", "davis": "val", "worldscore": "static"}


@pytest.mark.parametrize("name", ["re10k", "dl3dv"])
def test_cameras_and_frames_come_back_in_our_convention(
    name: str, scene: tuple[np.ndarray, ...], tmp_path: Path
) -> None:
    frames, poses, k = scene
    clip = MAKERS[name](tmp_path, frames, poses, k)
    assert LAYOUTS[name].names(tmp_path, SPLITS[name]) == [clip]
    protocol = protocol_of(name)
    source = Dataset(name, tmp_path, type(protocol)(**{**vars(protocol), "split": SPLITS[name]}))
    truth = source.truth(Case(0, clip, "as filmed", name, frames=COUNT), SIZE)
    np.testing.assert_array_equal(truth.frames, frames)
    np.testing.assert_allclose(truth.world_from_camera, poses, atol=1e-6)
    np.testing.assert_allclose(truth.intrinsics, k, rtol=1e-6)
    assert truth.landmarks is not None
    assert truth.median_depth == pytest.approx(4, rel=0.05)


def test_landmarks_have_the_depth_of_the_scene(scene: tuple[np.ndarray, ...]) -> None:
    frames, poses, k = scene
    found = landmarks(frames, poses, k)
    depth = FakeRenderer(14).views("wall", 5, poses[:1], k, SIZE).depth[0]
    true = depth[found[:, 1].astype(int), found[:, 0].astype(int)]
    assert len(found) > 20
    assert np.mean(np.abs(found[:, 2] / true - 1) < 0.03) > 0.85
    still = np.tile(np.eye(4), (COUNT, 1, 1))
    assert len(landmarks(frames, still, k)) == 0


def test_davis_has_masks_and_no_cameras(scene: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    davis(tmp_path, scene[0])
    assert LAYOUTS["davis"].names(tmp_path, "val") == ["bear"]
    truth = Dataset("davis", tmp_path, protocol_of("davis")).truth(
        Case(0, "bear", "as filmed", "davis", frames=COUNT), SIZE
    )
    assert truth.world_from_camera is None
    assert truth.still is not None
    assert not truth.still[:, :10].any()
    assert truth.still[:, 10:].all()


def test_worldscore_has_a_photo_and_moves(scene: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    clip = worldscore(tmp_path, scene[0])
    found = LAYOUTS["worldscore"].scene(tmp_path, "static", clip)
    assert (found.path, found.caption) == ("forward 0.3; pan left 30deg", "a table")
    truth = Dataset("worldscore", tmp_path, protocol_of("worldscore")).truth(
        Case(0, clip, found.path, "worldscore", frames=66), SIZE
    )
    assert not truth.filmed
    assert truth.world_from_camera is not None
    assert len(truth.world_from_camera) == len(truth) == 66


@pytest.mark.parametrize("name", NAMES)
def test_every_protocol_is_sound(name: str) -> None:
    protocol = protocol_of(name)
    assert protocol.dataset == name
    assert protocol.not_run


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frames": 0}, "gives frames as 0"),
        ({"metrics": ["beauty"]}, "metric 'beauty'"),
        ({"size": [3]}, r"gives the size \[3\]"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"dataset": "davis"}, "is for davis, not re10k"),
    ],
)
def test_a_protocol_that_breaks_a_rule_is_refused(
    change: dict[str, object], said: str, tmp_path: Path
) -> None:
    told = {"dataset": "re10k", "split": "test", "frames": 5, "metrics": ["psnr"], **change}
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(told))
    with pytest.raises(InputError, match=said):
        protocol_of("re10k", file)


def test_what_the_folder_lacks_is_said(scene: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    def refused(dataset: str, said: str, **changes: object) -> None:
        suite = SuiteRequest(folder=tmp_path / "out", videos=tmp_path)
        values = {"dataset": dataset, "data": tmp_path, "suite": suite, **changes}
        with pytest.raises(InputError, match=said):
            check_dataset(DatasetRequest(**values))  # type: ignore[arg-type]
        assert not (tmp_path / "out").exists()

    refused("cityscapes", "'cityscapes' is unknown")
    refused("re10k", "is no folder", data=tmp_path / "none")
    refused("re10k", "no folder of camera texts")
    refused("dl3dv", "no transforms.json")
    refused("davis", "no folder of frames")
    refused("worldscore", "no list static.json")
    re10k(tmp_path, *scene)
    refused("re10k", "--cameras .* has no effect", cameras=tmp_path)
    refused("re10k", "has 5 frames, but the protocol reads up to frame 33")
    text = tmp_path / "RealEstate10K/test/0a1b.txt"
    text.write_text("https://video\n1 2 3\n")
    refused("re10k", "not a URL and then 19 numbers")


def test_finished_videos_are_judged_on_a_data_set(
    scene: tuple[np.ndarray, ...], tmp_path: Path, flythrough: Command
) -> None:
    """Poses by PnP on triangulated points: the clip itself lies on its path, a copy does not."""
    clip = re10k(tmp_path, *scene)
    told = {"dataset": "re10k", "split": "test", "frames": COUNT, "size": list(SIZE)}
    told["metrics"] = ["rotation", "translation", "failure_rate", "psnr", "ssim", "epipolar"]
    (tmp_path / "mine.json").write_text(json.dumps(told))
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / f"re10k-{clip}-0.mp4", scene[0], 16, crf=4)
    words = ["evaluate", "dataset", "re10k", "--data", tmp_path, "-o", tmp_path / "out"]
    words += ["--protocol", tmp_path / "mine.json", "--videos", tmp_path / "videos"]
    answer = flythrough(*words, "--clips", 1)
    assert answer.status == 0, answer.err
    lines = {line["row"]: line for line in answer.result["means"]}
    assert lines["truth"]["ssim"] == pytest.approx(1)
    assert lines["given"]["psnr"] > lines["still"]["psnr"] + 3
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Not run here" not in page  # the protocol that was given names nothing
    assert lines["truth"]["failure_rate"] in (None, 0)


def test_corrected_data_have_another_version(scene: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    clip = davis(tmp_path / "data", *scene)
    cameras = tmp_path / "cameras"
    cameras.mkdir()
    (cameras / f"{clip}.json").write_text("{}")

    def version() -> str:
        protocol = protocol_of("davis", None)
        return Dataset("davis", tmp_path / "data", protocol, cameras, clip).version()

    seen = [version()]
    assert version() == seen[0]
    (cameras / f"{clip}.json").write_text("{ }")
    seen.append(version())
    picture = LAYOUTS["davis"].scene(tmp_path / "data", protocol_of("davis", None).split, clip)
    Image.fromarray(scene[0][1]).resize((320, 192)).save(picture.pictures[2])
    seen.append(version())
    assert len(set(seen)) == 3
