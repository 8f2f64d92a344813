"""What is read back from a rollout's folder is checked value by value."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flythrough.cameras.path_language import parse_path
from flythrough.engine.plan import Leg, Plan
from flythrough.engine.stored import branch_folder, rewind_folder
from flythrough.engine.stored_plan import check_fits, plan_from
from flythrough.engine.stored_settings import check_settings, warp_settings
from flythrough.engine.warp_video import WarpRecord
from flythrough.errors import RolloutError
from flythrough.rollout import store
from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout, Start
from flythrough.rollout.spec import RolloutSpec

SETTINGS: dict[str, Any] = {
    "steps": [1, 1, 1],
    "guidance": 1.0,
    "anchor": "first",
    "visible_threshold": 0.1,
    "warp_stages": 1,
}
SPEC = RolloutSpec(
    method="warp-as-history",
    model="m",
    model_digest="d",
    height=8,
    width=8,
    fps=16.0,
    seed=1,
    settings=SETTINGS,
)
START = Start(np.zeros((8, 8, 3), np.uint8), np.diag([9.0, 9.0, 1.0]))
GOOD = Plan(
    (Leg(0, 40, "x", parse_path("forward 1", 40)), Leg(2, 5, "y", parse_path("static", 6))), 1.5
)


def spec(**more: Any) -> RolloutSpec:
    return replace(
        SPEC, settings={**SETTINGS, **{k.replace("__", "."): v for k, v in more.items()}}
    )


def leg(**change: Any) -> list[Any]:
    return [GOOD.legs[0].to_dict() | change]


@pytest.mark.parametrize(
    "change",
    [
        {"legs": 3},
        {"legs": []},
        {"legs": [3]},
        {"legs": leg(first_chunk=1)},
        {"legs": leg(first_chunk=-1)},
        {"legs": leg(first_chunk=True)},
        {"legs": leg(frames=0)},
        {"legs": leg(frames=33.5)},
        {"legs": leg(frames="33")},
        {"legs": leg(frames=float("inf"))},
        {"legs": leg(prompt=7)},
        {"legs": leg(trajectory=[])},
        {"legs": leg(trajectory={"times": 3})},
        {"legs": leg(trajectory={"times": [0], "unit": "mile", "world_from_camera": [[1]]})},
        {"legs": [*leg(), *leg()]},
        {"median_depth": "deep"},
        {"median_depth": 0},
        {"median_depth": float("nan")},
        {"metric": "yes"},
        {"output": 5},
        {"output": ""},
        {"warp": 4},
        {"warp": {"video": "w.mp4", "mask": None}},
        {"warp": {"video": "w.mp4", "mask": None, "digests": [1, 2]}},
    ],
)
def test_a_damaged_plan_is_one_sentence(change: dict[str, Any]) -> None:
    assert plan_from(GOOD.to_dict()).to_dict() == GOOD.to_dict()
    with pytest.raises(RolloutError, match=r"stored plan is damaged: in plan\.json .*; restore"):
        plan_from(GOOD.to_dict() | change)


@pytest.mark.parametrize(
    "plan",
    [
        Plan((Leg(0, 33, "", None),), 1.0),
        Plan(GOOD.legs, None),
        Plan((Leg(0, 40, "", None),), warp=WarpRecord("w.mp4", None, ("one",))),
        Plan(GOOD.legs, 1.0, warp=WarpRecord("w.mp4", None, ("one", "two", "three"))),
    ],
)
def test_a_plan_of_another_rollout_is_refused(plan: Plan) -> None:
    check_fits(GOOD, Rollout(SPEC, START), Path("run"))
    with pytest.raises(RolloutError, match="does not fit the method"):
        check_fits(plan, Rollout(SPEC, START), Path("run"))


@pytest.mark.parametrize(
    "change",
    [
        {"warp__samples": 3},
        {"warp__samples_per_axis": "many"},
        {"warp__samples_per_axis": 2.5},
        {"warp__samples_per_axis": True},
        {"warp__samples_per_axis": 99},
        {"warp__top_fill": 1},
        {"warp__confidence": None},
        {"warp__render_mode": "guess"},
        {"warp__render_mode": [1]},
        {"steps": [1, "1", 1]},
        {"steps": []},
        {"guidance": "strong"},
        {"anchor": "third"},
        {"seams": 3},
        {"visible_threshold": 7},
        {"warp_stages": -1},
        {"warp_band": "long"},
        {"lora_scale": "much"},
    ],
)
def test_damaged_settings_are_one_sentence(change: dict[str, Any]) -> None:
    check_settings(spec(warp__samples_per_axis=3, warp__confidence=0))
    assert warp_settings(spec(warp__samples_per_axis=3)).samples_per_axis == 3
    with pytest.raises(
        RolloutError, match=r"setting.*; restore rollout\.json from a copy"
    ) as error:
        check_settings(spec(**change))
    assert "Error" not in str(error.value)


def test_missing_settings_are_named() -> None:
    bare = replace(SPEC, settings={"guidance": 1.0})
    with pytest.raises(RolloutError, match="lack steps"):
        check_settings(bare)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rollout = Rollout(SPEC, START)
    for index in range(2):
        latents = np.full((16, 9, 1, 1), index, np.float32)
        request = ChunkRequest(
            index, "", np.tile(np.eye(4), (33, 1, 1)), np.tile(np.eye(3), (33, 1, 1))
        )
        rollout = rollout.appended(Chunk(request, latents, np.zeros((33, 8, 8, 3), np.uint8)))
    store.create(tmp_path / "run", rollout, replace(GOOD, output="/o.mp4").to_dict())
    return tmp_path / "run"


def contents(folder: Path) -> dict[Path, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.read_bytes() for path in found}


@pytest.mark.parametrize("part", ["start.safetensors", "plan.json", "chunks/000000-*"])
def test_rewind_drops_nothing_before_the_rest_was_found_sound(run: Path, part: str) -> None:
    (file,) = run.glob(part)
    file.write_bytes(file.read_bytes()[:-9] + b"x")
    before = contents(run)
    with pytest.raises(RolloutError):
        rewind_folder(run, 1)
    assert contents(run) == before
    file.unlink()
    before = contents(run)
    if part != "plan.json":  # a rollout may have been stored without a plan
        with pytest.raises(RolloutError, match="is missing"):
            rewind_folder(run, 1)
        assert contents(run) == before


def test_a_branch_never_replaces_its_parents_video(run: Path, tmp_path: Path) -> None:
    before = contents(run)
    made = branch_folder(run, tmp_path / "new", 1)
    assert len(made.chunks) == 1
    plan = json.loads((tmp_path / "new" / "plan.json").read_text())["plan"]
    assert plan["output"] is None
    assert plan_from(plan).legs[0].frames == 40
    assert contents(run) == before
    for wrong, words in (((run, 1), "already holds"), ((run / "sub", 1), "inside its parent")):
        with pytest.raises(RolloutError, match=words):
            branch_folder(run, *wrong)
    with pytest.raises(RolloutError, match="give 0 to 2"):
        branch_folder(run, tmp_path / "other", 3)
    assert not (tmp_path / "other").exists()
