"""Random poses written in each format come back, and no bytes make a reader fail unkindly."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flythrough.cameras import pose as se3
from flythrough.cameras.formats import read_trajectory
from flythrough.cameras.formats.colmap import ColmapModel, write_model
from flythrough.errors import CameraError

_TWIST = st.tuples(*[st.floats(-2, 2, allow_subnormal=False)] * 6)
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
FORMATS = ("transforms", "render path", "text", "colmap binary", "colmap text")


def write(folder: Path, kind: str, poses: np.ndarray, k: np.ndarray, size: tuple[int, int]) -> Path:
    height, width = size
    if kind == "transforms":
        frames = [
            {
                "file_path": f"{n}.png",
                "transform_matrix": (pose @ _FLIP).tolist(),
                **{"fl_x": k[0, 0], "fl_y": k[1, 1], "cx": k[0, 2], "cy": k[1, 2]},
            }
            for n, pose in enumerate(poses)
        ]
        file = folder / "transforms.json"
        file.write_text(json.dumps({"w": width, "h": height, "frames": frames[::-1]}))
    elif kind == "render path":
        fov = float(np.rad2deg(2 * np.arctan(height / 2 / k[1, 1])))
        entries = [{"camera_to_world": (p @ _FLIP).ravel().tolist(), "fov": fov} for p in poses]
        sides = {"render_width": width, "render_height": height}
        file = folder / "camera_path.json"
        file.write_text(json.dumps({"camera_path": entries, **sides}))
    elif kind == "text":
        lens = [k[0, 0] / width, k[1, 1] / height, k[0, 2] / width, k[1, 2] / height, 0, 0]
        rows = [
            " ".join(repr(float(v)) for v in [n, *lens, *back[:3].ravel()])
            for n, back in enumerate(se3.inverse(poses))
        ]
        file = folder / "clip.txt"
        file.write_text("\n".join(["url", *rows]))
    else:
        file, empty = folder / "model", np.zeros((0, 3))
        file.mkdir()
        matrices = np.repeat(k[None], len(poses), 0)
        names = [f"{n}.png" for n in range(len(poses))]
        model = ColmapModel(poses, matrices, size, names, empty, empty.astype(np.uint8))
        write_model(file, model, "text" if kind.endswith("text") else "binary")
    return file


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=25, deadline=None)
@given(
    twists=st.lists(_TWIST, min_size=1, max_size=12),
    focal=st.floats(50, 2000),
    size=st.tuples(st.integers(40, 900), st.integers(40, 900)),
    scale=st.floats(0.01, 100),
)
def test_poses_come_back(
    kind: str,
    twists: list[tuple[float, ...]],
    focal: float,
    size: tuple[int, int],
    scale: float,
) -> None:
    poses = se3.exp(np.array(twists))
    k = np.array([[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1]])
    with tempfile.TemporaryDirectory() as folder:
        path = read_trajectory(write(Path(folder), kind, poses, k, size), scale=scale)
    expected = poses.copy()
    expected[:, :3, 3] *= scale
    np.testing.assert_allclose(path.world_from_camera, expected, rtol=1e-7, atol=1e-7 * scale)
    assert path.intrinsics is not None
    assert path.size is not None
    shares = path.intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]] / np.array(path.size)[[1, 0, 1, 0]]
    wanted = k[[0, 1, 0, 1], [0, 1, 2, 2]] / np.array(size)[[1, 0, 1, 0]]
    np.testing.assert_allclose(shares, np.broadcast_to(wanted, shares.shape), rtol=1e-9)


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_are_read_or_refused_in_one_sentence(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    poses = se3.exp(rng.uniform(-1, 1, (3, 6)))
    k = np.array([[90.0, 0, 64], [0, 90.0, 48], [0, 0, 1]])
    file = write(tmp_path, kind, poses, k, (96, 128))
    targets = [file] if file.is_file() else sorted(file.iterdir())
    for target in targets:
        whole = target.read_bytes()
        for _ in range(60):
            place = int(rng.integers(0, max(1, len(whole) - 1)))
            cut = rng.random() < 0.3
            target.write_bytes(whole[:place] + (b"" if cut else rng.bytes(4) + whole[place + 4 :]))
            try:
                read_trajectory(file)
            except CameraError as error:
                assert "\n" not in str(error)  # noqa: PT017 - some damage is harmless
        target.write_bytes(whole)
