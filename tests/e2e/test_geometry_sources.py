"""``--geometry`` with networks, folders and 3D files, as a user types it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

from throwaway import Command

CAMERA = "forward 0.2"


@pytest.mark.parametrize("kind", ["depth-pro", "relative", "metric"])
def test_geometry_of_a_folder(
    kind: str,
    flythrough: Command,
    photo: Path,
    tiny_model: Path,
    tiny_depth: dict[str, Path],
    tmp_path: Path,
) -> None:
    file = tmp_path / "depth.npz"
    folder = tiny_depth[kind]
    answer = flythrough("geometry", photo, "--model", tiny_model, "--geometry", folder, "-o", file)
    assert answer.status == 0, answer.err
    assert answer.result["scale"] == {"relative": "affine"}.get(kind, "metric")
    assert ("up to scale and shift" in answer.err) == (kind == "relative")
    assert ("apple-amlr" in answer.err) == (kind == "depth-pro")
    assert "states no focal length" in answer.err
    with np.load(file) as arrays:
        assert arrays["depth"].shape == (64, 128)
        assert arrays["valid"].any()


@pytest.mark.parametrize("kind", ["depth-pro", "relative"])
def test_generate_and_continue_with_a_folder(
    kind: str,
    flythrough: Command,
    photo: Path,
    tiny_model: Path,
    tiny_depth: dict[str, Path],
    tmp_path: Path,
) -> None:
    rollout, output = tmp_path / "run", tmp_path / "out.mp4"
    answer = flythrough(
        *("generate", photo, "--camera", CAMERA, "--model", tiny_model, "--frames", "33"),
        *("--geometry", tiny_depth[kind], "--rollout", rollout, "-o", output),
    )
    assert answer.status == 0, answer.err
    answer = flythrough("continue", rollout, "--camera", CAMERA, "-o", output)
    assert answer.status == 0, answer.err
    assert answer.result["chunks"] == 2


@pytest.mark.parametrize("suffix", [".ply", ".glb"])
def test_written_points_are_geometry_again(
    suffix: str, flythrough: Command, photo: Path, tiny_model: Path, tmp_path: Path
) -> None:
    first, points, second = (tmp_path / name for name in ("a.npz", f"p{suffix}", "b.npz"))
    common = ("geometry", photo, "--model", tiny_model)
    for output in (first, points):
        assert flythrough(*common, "-o", output).status == 0
    assert flythrough(*common, "--geometry", points, "-o", second).status == 0
    with np.load(first) as a, np.load(second) as b:
        assert np.array_equal(a["depth"][a["valid"]], b["depth"][a["valid"]])
        assert np.allclose(a["intrinsics"], b["intrinsics"])
    answer = flythrough(
        *("generate", photo, "--camera", CAMERA, "--model", tiny_model, "--frames", "33"),
        *("--geometry", points, "-o", tmp_path / "out.mp4"),
    )
    assert answer.status == 0, answer.err
    assert "only the photo is kept" in answer.err
    before = points.read_bytes()
    if suffix == ".ply":
        answer = flythrough(*common, "--geometry", f"{points}:opencv", "-o", points)
        assert answer.status == 2
        assert "would be overwritten" in answer.err
    assert points.read_bytes() == before


def test_bad_sources_are_one_sentence_before_any_work(
    flythrough: Command,
    photo: Path,
    tiny_model: Path,
    tiny_depth: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    behind = tmp_path / "behind.obj"
    behind.write_text("v 0 0 -1\nv 1 0 -1\n")
    output = tmp_path / "out.mp4"
    common = ("generate", photo, "--model", tiny_model, "-o", output)
    for source, camera, said in (
        ("depth-pro", CAMERA, "`flythrough models pull depth-pro`"),
        ("depth-anything", "forward 1m", "`flythrough models pull depth-anything`"),
        (tiny_depth["relative"], "forward 1m", "no metric scale"),
        (behind, CAMERA, "behind the camera"),
        (behind, "forward 1m", "no metric scale"),
        (tmp_path, CAMERA, "no config.json"),
        ("deep-pro", CAMERA, "'deep-pro' is unknown"),
    ):
        answer = flythrough(*common, "--camera", camera, "--geometry", source)
        assert (answer.status, answer.err.count("\n")) == (2, 1), answer.err
        assert said in answer.err
        assert not output.exists()


def test_metric_networks_follow_paths_in_metres(
    flythrough: Command,
    photo: Path,
    tiny_model: Path,
    tiny_depth: dict[str, Path],
    tmp_path: Path,
) -> None:
    answer = flythrough(
        *("generate", photo, "--camera", "forward 0.1m", "--model", tiny_model, "--frames", "33"),
        *("--geometry", tiny_depth["metric"], "-o", tmp_path / "out.mp4"),
    )
    assert answer.status == 0, answer.err


def test_the_list_shows_every_licence(flythrough: Command) -> None:
    rows = {row["name"]: row for row in flythrough("models", "list").result["models"]}
    assert "apple-amlr" in rows["depth-pro"]["licence"]
    assert rows["depth-anything"]["licence"] == "Apache-2.0"
    assert "not commercial" in rows["depth-anything-large"]["licence"]
    assert {name for name, row in rows.items() if not row["commercial"]} == {
        "cut3r",
        "depth-pro",
        "depth-anything-base",
        "depth-anything-large",
        "pi3x",
        "warp-as-history-lora",
    }
