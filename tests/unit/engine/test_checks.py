"""Early checks: warps from files, plausible photo geometry, remembered files, point files."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flythrough.engine.files import check_unchanged, named_files
from flythrough.engine.geometry_files import glb_bytes, ply_bytes
from flythrough.engine.options import check_size
from flythrough.engine.photo_geometry import estimate_photo, plausible
from flythrough.engine.warp_video import read_warp, reread_warp
from flythrough.errors import InputError, MediaError, RolloutError
from flythrough.geometry.estimators.flat import FlatDepth
from flythrough.geometry.types import Geometry
from flythrough.media.image import FittedPhoto, Photo, default_intrinsics, fit
from flythrough.media.video import write_video


def video(path: Path, count: int, level: int, side: int = 64) -> Path:
    write_video(path, [np.full((side, side, 3), level + i, np.uint8) for i in range(count)], 16.0)
    return path


def test_warp_is_cut_and_filled_up(tmp_path: Path) -> None:
    warp = read_warp(video(tmp_path / "w.mp4", 50, 60), None, 40, (64, 64))
    assert warp.frames.shape == (66, 64, 64, 3)
    assert (warp.frames[39:] == warp.frames[39]).all()
    assert (warp.mask == 255).all()
    assert warp.given == 50
    assert len(set(warp.record.digests)) == 2


def test_mask_counts_in_the_digests(tmp_path: Path) -> None:
    file = video(tmp_path / "w.mp4", 33, 60)
    dark, light = video(tmp_path / "d.mp4", 33, 20), video(tmp_path / "l.mp4", 33, 200)
    first, second = (read_warp(file, mask, 33, (64, 64)) for mask in (dark, light))
    assert first.record.digests != second.record.digests
    assert reread_warp(first.record, 33, (64, 64)).record == first.record
    dark.write_bytes(light.read_bytes())
    with pytest.raises(RolloutError, match="changed since"):
        reread_warp(first.record, 33, (64, 64))


def test_warps_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file, short = video(tmp_path / "w.mp4", 33, 60), video(tmp_path / "s.mp4", 20, 60)
    with pytest.raises(MediaError, match="--frames 33"):
        read_warp(file, None, 34, (64, 64))
    with pytest.raises(MediaError, match="--size 64x64"):
        read_warp(file, None, 33, (64, 128))
    with pytest.raises(MediaError, match="equally long"):
        read_warp(file, short, 33, (64, 64))
    with pytest.raises(MediaError, match="render it at the output size"):
        read_warp(file, None, 33, (64, 128), photo=(100, 300))


def test_warps_of_another_size_are_cut_and_scaled_like_the_photo(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 240, 2, dtype=np.uint8)[:, None], (60, 1, 3)).reshape(60, 120, 3)
    write_video(tmp_path / "wide.mp4", [ramp] * 33, 15.0)
    small = video(tmp_path / "m.mp4", 33, 60, side=32)
    warp = read_warp(tmp_path / "wide.mp4", small, 33, (64, 64), photo=(480, 960))
    assert warp.frames.shape == (33, 64, 64, 3)
    assert warp.shape == (60, 120)
    expected = fit(Photo(ramp, None, Path("ramp"), ""), 64, 64).pixels
    assert np.abs(warp.frames[0].astype(int) - expected).max() < 6
    np.testing.assert_allclose(warp.mask[0], 60, atol=2)
    again = reread_warp(warp.record, 33, (64, 64))
    np.testing.assert_array_equal(again.frames, warp.frames)


@pytest.mark.parametrize(
    ("size", "remedy"), [((100, 64), "try 128"), ((64, 8000), "try 4096"), ((-5, 64), "try 64")]
)
def test_size_names_the_nearest_good_one(size: tuple[int, int], remedy: str) -> None:
    with pytest.raises(InputError, match=remedy):
        check_size(size)


class Oracle(FlatDepth):
    """Claims the focal length it was made with unless another one is known."""

    name = "oracle"

    def __init__(self, focal: float) -> None:
        self.focal = focal

    def estimate(self, images: torch.Tensor, *, intrinsics: torch.Tensor | None = None) -> Geometry:
        geometry = super().estimate(images, intrinsics=intrinsics)
        if intrinsics is not None:
            return geometry
        matrix = torch.tensor([[[self.focal, 0, 64], [0, self.focal, 32], [0, 0, 1.0]]])
        return replace(geometry, intrinsics=matrix)


@pytest.mark.parametrize(
    ("focal", "good"), [(100.0, True), (-100.0, False), (5.0, False), (9000.0, False)]
)
@pytest.mark.parametrize("known", [True, False])
def test_photo_never_gets_an_impossible_focal_length(focal: float, good: bool, known: bool) -> None:
    own = default_intrinsics(64, 128, 60.0)
    pixels = np.zeros((64, 128, 3), np.uint8)
    photo = FittedPhoto(pixels, own, (64, 128), known, 1.0, "digest")
    notes: list[str] = []
    geometry = estimate_photo(Oracle(focal), photo, torch.device("cpu"), notes.append)
    assert plausible(geometry)
    expected = own[0, 0] if known or not good else focal
    assert float(geometry.intrinsics[0, 0, 0]) == pytest.approx(expected)
    assert len(notes) == (0 if known or good else 1)


def test_named_files_are_remembered_by_content(tmp_path: Path) -> None:
    depth = tmp_path / "depth.npy"
    depth.write_bytes(b"one")
    settings: dict[str, object] = {**named_files(str(depth), "off")}
    assert list(settings) == ["geometry_digest"]
    check_unchanged(str(depth), "off", settings)
    depth.write_bytes(b"two")
    with pytest.raises(RolloutError, match="missing or changed"):
        check_unchanged(str(depth), "off", settings)


def test_point_files_hold_the_points() -> None:
    points = np.array([[1, 2, 3], [-1, 0, 5]], np.float32)
    colours = np.array([[255, 0, 7], [1, 2, 3]], np.uint8)
    body = ply_bytes(points, colours).split(b"end_header\n", 1)[1]
    assert struct.unpack("<fffBBB", body[:15]) == (1.0, 2.0, 3.0, 255, 0, 7)
    glb = glb_bytes(points, colours)
    length = struct.unpack("<I", glb[12:16])[0]
    scene = json.loads(glb[20 : 20 + length])
    binary = glb[28 + length :]
    assert len(binary) == scene["buffers"][0]["byteLength"]
    np.testing.assert_array_equal(
        np.frombuffer(binary[:24], np.float32).reshape(2, 3), [[1, -2, -3], [-1, 0, -5]]
    )
    assert binary[24:28] == bytes([255, 0, 7, 255])
    assert scene["accessors"][0]["min"] == [-1.0, -2.0, -5.0]
