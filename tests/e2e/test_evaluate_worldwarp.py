"""``flythrough evaluate worldwarp`` on the throw-away ST-Diff, and its refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from throwaway import Command

pytest.importorskip("cv2")

ROWS = "warp,cache-none,cache-points,full,noise-uniform,noise-spatial,noise-temporal,jumping"


def command(folder: Path, model: Path, *more: object) -> list[object]:
    words = ["evaluate", "worldwarp", "-o", folder, "--model", model, "--device", "cpu"]
    many = () if "--clips" in more else ("--clips", 1)
    return [*words, "--geometry", "flat", *many, *more]


def test_every_row_has_figures_at_both_chunks_and_is_kept(
    tiny_st_diff: Path, tmp_path: Path, flythrough: Command
) -> None:
    words = command(tmp_path, tiny_st_diff, "--rows", ROWS, "--scene", "mesh", "--strength", 0.5)
    answer = flythrough(*words)
    assert answer.status == 0, answer.err
    assert (answer.result["made"], answer.result["kept"]) == (8, 0)
    data = json.loads((tmp_path / "results.json").read_text())
    lines = {line["row"]: line for line in data["means"]}
    assert list(lines) == ROWS.split(",")
    for number in (2, 4):
        for figure in ("rotation", "psnr_visible", "detail", "seam", "drift"):
            assert lines["full"][f"chunk_{number}_{figure}"] is not None, figure
        assert lines["warp"][f"chunk_{number}_seam"] < 2
        assert lines["jumping"][f"chunk_{number}_seam"] > 1.4
    pixels = {clip["row"]: clip["pixels"] for clip in data["clips"]}
    assert len(set(pixels.values())) == len(pixels), "two rows made the same video"
    assert data["cases"]["worldwarp"][0]["frames"] == 9 + 3 * 4
    assert data["configuration"]["worldwarp"]["window"] == [9, 5]
    assert "chunk 4: PSNR visible" in (tmp_path / "table.md").read_text()
    assert "data:image/jpeg;base64," in (tmp_path / "index.html").read_text()
    assert flythrough(*words).result["kept"] == 8


def test_the_warp_alone_is_drawn_by_the_scene_that_was_asked_for(
    tiny_st_diff: Path, tmp_path: Path, flythrough: Command
) -> None:
    pixels = set()
    for words in (("--scene", "mesh"), ("--gaussian-steps", 1)):
        folder = tmp_path / str(words[1])
        asked = ("--rows", "warp", "--chunks", 2, "--size", "64x96", *words)
        answer = flythrough(*command(folder, tiny_st_diff, *asked))
        assert answer.status == 0, answer.err
        assert [line["row"] for line in answer.result["means"]] == ["warp"]
        (clip,) = json.loads((folder / "results.json").read_text())["clips"]
        pixels.add(clip["pixels"])
    assert len(pixels) == 2


def test_an_st_diff_beside_a_helios_is_judged(
    tiny_st_diff: Path, visible_model: Path, tmp_path: Path, flythrough: Command
) -> None:
    both = tmp_path / "both"
    shutil.copytree(visible_model, both)
    shutil.copytree(tiny_st_diff / "transformer", both / "st_diff")
    small = ("--size", "64x96", "--chunk-frames", 9, "--overlap", 1, "--steps", 2, "--chunks", 2)
    words = command(tmp_path / "out", both, *small, "--rows", "codec,cache-gaussian")
    answer = flythrough(*words, "--gaussian-steps", 1)
    assert answer.status == 0, answer.err
    lines = {line["row"]: line for line in answer.result["means"]}
    assert lines["cache-gaussian"]["chunk_2_seam"] is not None
    assert "chunk_4_seam" not in lines["codec"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--clips", "13"], "the suite has 12 clips"),
        (["--chunks", "1"], "--chunks 1 is out of range"),
        (["--rows", "full,best"], "The row 'best' is unknown"),
        (["--lora", "off"], "--lora off has no effect with method worldwarp"),
        (["--overlap", "4"], "An overlap of 4 frames"),
        (["--rows", "cache-mesh", "--gaussian-steps", "9"], "no row keeps Gaussians"),
        (["--steps", "0"], "--steps 0 must be counts from 1"),
        (["--strength", "1.5"], "--strength 1.5 is out of range"),
        (["--size", "64x72"], "multiple of 16"),
        (["--rows", "warp,jumping", "--steps", "3"], "--steps 3 has no effect"),
        (["--rows", "warp,jumping", "--strength", "0.5"], "--strength 0.5 has no effect"),
        (["--rows", "codec", "--scene", "mesh"], "--scene mesh has no effect"),
    ],
)
def test_bad_input_is_refused(
    words: list[str], said: str, tiny_st_diff: Path, tmp_path: Path, flythrough: Command
) -> None:
    answer = flythrough(*command(tmp_path / "out", tiny_st_diff, *words))
    assert answer.status == 2
    assert said in answer.err
    assert not (tmp_path / "out").exists()


def test_a_model_without_an_st_diff_is_refused(
    tiny_model: Path, tmp_path: Path, flythrough: Command
) -> None:
    answer = flythrough(*command(tmp_path / "out", tiny_model))
    assert answer.status == 2
    assert "needs an ST-Diff" in answer.err
