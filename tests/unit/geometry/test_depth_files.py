"""Depth files: what is read, and one sentence for each thing that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flythrough.errors import CameraError, GeometryError
from flythrough.geometry.estimators.files import read_depth
from flythrough.geometry.estimators.flat import FlatDepth
from flythrough.geometry.estimators.given import GivenDepth
from flythrough.geometry.estimators.select import check_geometry_choice, load_estimator

RAMP = np.linspace(1, 4, 24 * 40, dtype=np.float32).reshape(24, 40)


def picture(height: int = 24, width: int = 40) -> torch.Tensor:
    return torch.rand(1, 3, height, width)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".PNG"])
def test_every_format_gives_the_same_depth(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"depth{suffix}"
    if suffix == ".npy":
        np.save(path, RAMP)
    elif suffix == ".npz":
        np.savez(path, other=np.arange(3), depth=RAMP)
    else:
        Image.fromarray(np.round(RAMP * 1000).astype(np.uint16)).save(path, format="PNG")
    geometry = read_depth(path).estimate(picture())
    assert torch.allclose(geometry.depth[0], torch.from_numpy(RAMP), atol=6e-4)
    assert geometry.valid.all()


def test_stacks_and_unnamed_arrays(tmp_path: Path) -> None:
    stack = np.stack([RAMP, RAMP + 1])
    np.save(tmp_path / "stack.npy", stack)
    np.savez(tmp_path / "unnamed.npz", names=np.arange(4), z=stack)
    np.save(tmp_path / "channel.npy", RAMP[..., None])
    for name in ("stack.npy", "unnamed.npz", "channel.npy"):
        assert torch.equal(read_depth(tmp_path / name).depth, torch.from_numpy(RAMP)), name


def test_stored_intrinsics_follow_the_size(tmp_path: Path) -> None:
    matrix = np.array([[30.0, 0, 20], [0, 31, 12], [0, 0, 1]])
    np.savez(tmp_path / "d.npz", depth=RAMP, intrinsics=matrix[None])
    found = read_depth(tmp_path / "d.npz").estimate(picture(48, 80)).intrinsics[0]
    assert torch.allclose(found, torch.tensor([[60.0, 0, 40], [0, 62, 24], [0, 0, 1]]))
    given = torch.tensor([[50.0, 0, 40], [0, 50, 24], [0, 0, 1]])
    found = read_depth(tmp_path / "d.npz").estimate(picture(48, 80), intrinsics=given).intrinsics
    assert torch.equal(found[0], given)


def test_resizing_takes_the_nearest_value_and_keeps_holes() -> None:
    depth = np.array([[1, 2], [0, 4]], dtype=np.uint16)
    found = GivenDepth(depth, "tiny").estimate(picture(4, 4))
    expected = torch.tensor([[1.0, 1, 2, 2], [1, 1, 2, 2], [0, 0, 4, 4], [0, 0, 4, 4]])
    assert torch.equal(found.depth[0], expected)
    assert torch.equal(found.valid[0], expected > 0)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((24, 40), np.nan, np.float32), "NaN"),
        (np.full((24, 40), np.inf, np.float32), "infinite"),
        (-RAMP, "negative"),
        (np.zeros((24, 40)), "no valid pixel"),
        (np.ones(40), "shape"),
        (np.ones((24, 40, 3)), "shape"),
        (np.ones((1, 2, 24, 40)), "shape"),
        (np.ones((0, 40)), "shape"),
        (np.ones((24, 40), bool), "type"),
        (np.ones((24, 40), complex), "type"),
    ],
)
def test_unusable_maps_are_refused(tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "d.npy", array)
    with pytest.raises(GeometryError, match=words) as caught:
        read_depth(tmp_path / "d.npy")
    assert "\n" not in str(caught.value)


def broken_files(folder: Path) -> dict[str, Path]:
    files = {name: folder / name for name in ("text.npy", "empty.npy", "cut.npz", "note.png")}
    files["text.npy"].write_text("not an array")
    files["empty.npy"].touch()
    np.savez(folder / "whole.npz", depth=RAMP)
    files["cut.npz"].write_bytes((folder / "whole.npz").read_bytes()[:200])
    files["note.png"].write_bytes(b"not a picture")
    files["pickled.npy"] = folder / "pickled.npy"
    np.save(files["pickled.npy"], np.array([{"a": 1}], dtype=object), allow_pickle=True)
    files["colours.png"] = folder / "colours.png"
    Image.new("RGB", (40, 24)).save(files["colours.png"])
    files["hollow.npz"] = folder / "hollow.npz"
    np.savez(files["hollow.npz"], names=np.arange(3))
    files["missing.npy"] = folder / "missing.npy"
    files["depth.exr"] = folder / "depth.exr"
    return files


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    for name, path in broken_files(tmp_path).items():
        with pytest.raises(GeometryError, match=name.split(".")[0]) as caught:
            read_depth(path)
        assert "\n" not in str(caught.value), name


def test_wrong_intrinsics_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", depth=RAMP, intrinsics=np.zeros((3, 3)))
    with pytest.raises(CameraError, match="focal"):
        read_depth(tmp_path / "d.npz")
    with pytest.raises(CameraError, match="3x3"):
        GivenDepth(RAMP, "ramp", np.eye(4))


def test_another_aspect_is_refused() -> None:
    with pytest.raises(GeometryError, match="crop the depth map"):
        GivenDepth(RAMP, "ramp").estimate(picture(40, 40))


def test_choices(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", RAMP)
    check_geometry_choice("default")
    check_geometry_choice(str(tmp_path / "d.npy"))
    assert isinstance(load_estimator("flat"), FlatDepth)
    assert isinstance(load_estimator(str(tmp_path / "d.npy"), None), GivenDepth)
    (tmp_path / "model" / "geometry").mkdir(parents=True)
    seen: list[Path] = []

    def network(folder: Path) -> FlatDepth:
        seen.append(folder)
        return FlatDepth()

    for name in ("default", "pi3x"):
        load_estimator(name, tmp_path / "model", network=network)
    assert seen == [tmp_path / "model" / "geometry"] * 2


def test_unknown_choices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="choose default"):
        check_geometry_choice("midas")
    with pytest.raises(GeometryError, match="choose default"):
        load_estimator("midas")
    with pytest.raises(GeometryError, match="there is none"):
        load_estimator("default", tmp_path, network=lambda _: FlatDepth())
    with pytest.raises(GeometryError, match="no model folder"):
        load_estimator("pi3x")
    with pytest.raises(GeometryError, match="no depth file"):
        load_estimator(str(tmp_path / "gone.npy"))
