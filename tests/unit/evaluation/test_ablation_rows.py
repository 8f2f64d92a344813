"""Rows, controls, held-out seeds and the table, without a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flythrough.cameras import pose as se3
from flythrough.errors import InputError
from flythrough.evaluation.chart import line_chart
from flythrough.evaluation.columns import ABLATION
from flythrough.evaluation.controls import PATHS, shuffled
from flythrough.evaluation.measures import Figures, read_figures
from flythrough.evaluation.rows import ROW_NAMES, ROWS, chosen_rows
from flythrough.evaluation.suite import CASES, LONG, LOOPS, Worlds
from flythrough.evaluation.table import markdown_table, means
from flythrough.evaluation.truth import Case, kept_truth
from flythrough.evaluation.verdicts import verdicts
from flythrough.training.world_data import HELDOUT_SEED


def result(row: str, seed: int = 1, **changes: float | None) -> Figures:
    values = {
        "rotation": 1.0, "translation": 2.0, "measured_rotation": None,
        "measured_translation": None, "length_ratio": None, "failure_rate": 0.25,
        "psnr_visible": 20.0, "psnr_disoccluded": None, "seam": None, "drift": 0.5,
    }  # fmt: skip
    return Figures(
        digest="d", row=row, clip=f"room-{seed}", source="worlds", seed=seed, kind="room",
        path="forward 0.1", values={**values, **changes},
        curves={"frame_rotation": (1.0, None), "frame_inliers": (40,)}, pixels="p", seconds=1.0,
    )  # fmt: skip


def test_held_out_worlds_are_used_once_and_by_nothing_else() -> None:
    seeds = [case.seed for case in (*CASES, *LOOPS, *LONG)]
    assert len(set(seeds)) == len(seeds)
    assert HELDOUT_SEED not in seeds
    assert min(seeds) > 9_000_203  # those of tests and benches end there


def test_rows_come_in_the_order_of_the_table() -> None:
    assert len(set(ROW_NAMES)) == len(ROWS)
    assert [row.name for row in chosen_rows(["still", "truth"])] == ["truth", "still"]
    with pytest.raises(InputError, match="'best' is unknown"):
        chosen_rows(["best"])
    with pytest.raises(InputError, match="No row"):
        chosen_rows([])


def test_half_a_path_is_half_of_every_turn_and_way() -> None:
    path = np.stack([np.eye(4), se3.from_parts(se3.rotation_y(0.4), [2, 0, 4])])
    half = PATHS["half"](path)
    np.testing.assert_allclose(half[0], np.eye(4), atol=1e-12)
    np.testing.assert_allclose(half[1], se3.from_parts(se3.rotation_y(0.2), [1, 0, 2]), atol=1e-9)


def test_shuffled_frames_all_change_places_and_the_photo_stays() -> None:
    order = shuffled(33, 7)
    assert sorted(order) == list(range(33))
    assert order[0] == 0
    assert (order != np.arange(33)).sum() == 10
    assert (order == shuffled(33, 7)).all()
    assert (order != shuffled(33, 8)).any()


def test_means_are_over_clips_in_which_a_figure_is_defined() -> None:
    rows = chosen_rows(["full", "still"])
    found = [result("full"), result("full", 2, rotation=3.0, psnr_disoccluded=12.0)]
    found.append(result("still", translation=8.0))
    lines = means(found, rows, ABLATION)
    assert lines[0]["rotation"] == 2.0
    assert lines[0]["psnr_disoccluded"] == 12.0
    assert lines[0]["seam"] is None
    table = markdown_table(lines, ABLATION)
    assert "| adapter, full | 2.00 | 2.00 | - | - | - | 25 | 20.0 | 12.0 | - | +0.5 |" in table


def test_a_control_that_is_not_told_from_the_path_is_named() -> None:
    rows = chosen_rows(["truth", "half"])
    exact = result("truth", rotation=0.1, translation=0.1, length_ratio=1.0, psnr_visible=60.0)
    blind = result("half", rotation=0.2, translation=0.3, length_ratio=0.5)
    found = {(v.row, v.check): v.as_it_must for v in verdicts([exact, blind], rows)}
    assert found == {
        ("truth", "camera"): True, ("truth", "length"): True, ("truth", "pixels"): True,
        ("half", "camera"): False, ("half", "length"): True, ("half", "pixels"): True,
    }  # fmt: skip


def test_an_exact_render_that_fails_a_measure_is_named() -> None:
    rows = chosen_rows(["truth", "half"])
    found = verdicts([result("truth", rotation=4.0), result("half", rotation=4.0)], rows)
    assert [(v.row, v.as_it_must) for v in found if v.check == "camera"] == [
        ("truth", False), ("half", True),
    ]  # fmt: skip


def test_figures_come_back_from_disk_only_for_the_same_state(tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    before = result("full")
    before.write(file)
    assert read_figures(file, "d") == before
    assert read_figures(file, "e") is None
    assert read_figures(tmp_path / "other.json", "d") is None
    file.write_text(file.read_text()[:40])
    assert read_figures(file, "d") is None


def test_the_truth_is_kept_and_made_again_for_another_size(tmp_path: Path) -> None:
    case = Case(9_000_303, "gallery", "pan right 20deg")
    made = kept_truth(Worlds(), case, (16, 32), tmp_path)
    again = kept_truth(Worlds(), case, (16, 32), tmp_path)
    for name in ("frames", "depth", "visible", "world_from_camera", "intrinsics"):
        np.testing.assert_array_equal(getattr(made, name), getattr(again, name))
    assert (again.caption, again.median_depth) == (made.caption, made.median_depth)
    assert made.visible[0].all()
    assert not made.visible[-1, :, -1].any()  # a pan to the right: the right edge is new
    assert kept_truth(Worlds(), case, (16, 24), tmp_path).size == (16, 24)
    asked = made.trajectory().resolve(made.intrinsics, made.size, made.median_depth)
    np.testing.assert_allclose(asked.world_from_camera, made.world_from_camera, atol=1e-9)


def test_a_chart_is_one_element_with_a_curve_for_each_line() -> None:
    text = line_chart("a < b", "frame", {"one": [0.0, 1.0, 2.0], "two": [2.0, None, -1.0]})
    assert text.startswith("<svg")
    assert text.endswith("</svg>")
    assert text.count("<polyline") == 2
    assert "a &lt; b" in text
    assert line_chart("", "", {"flat": [0.0]}).count("<polyline") == 1
