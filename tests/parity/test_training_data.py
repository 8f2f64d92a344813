"""The published trainer's choices: seeds, clips, order of rows, list of videos, prompt keys."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import pytest
from published_draws import GOLDEN

from flythrough.training.clip_sampling import ClipSettings, item_order, sample_clip, stable_seed
from flythrough.training.data_csv import read_training_list
from flythrough.training.prompt_store import prompt_key

SAID = json.loads((GOLDEN / "training_recipe" / "recipe.json").read_text())
FRAMES = {"75frames": 75, "40frames": 40, "33frames": 33}
OPTIONS = {
    "online_direction_augmentation": "augment",
    "online_first_chunk_prob": "first",
    "online_future_keyframe_prob": "future",
    "online_max_history_frames": "history",
}


def settings_of(options: dict[str, Any]) -> ClipSettings:
    """The published arguments as settings."""
    made = {OPTIONS[name]: value for name, value in options.items() if name in OPTIONS}
    low = options.get("online_future_keyframes_min", 1)
    return ClipSettings(**made, future_count=(low, options.get("online_future_keyframes_max", 2)))


@pytest.mark.parametrize("name", sorted(SAID["sampling"]))
def test_clips(name: str) -> None:
    case = SAID["sampling"][name]
    assert len(case["cases"]) == 16
    for expected in case["cases"]:
        row, direction, kind, item = expected["seq"].split(":")
        clip = sample_clip(
            FRAMES.get(name, 75),
            SAID["sampling_seed"],
            row,
            int(item),
            settings_of(case["kwargs"]),
        )
        policy = "history_plus_future" if clip.future else "history_only"
        found = {
            "seq": f"{row}:{direction}:{kind}:{item}",
            "chunk_mode": clip.kind,
            "direction": clip.direction,
            "history_indices": list(clip.history),
            "future_keyframe_indices": list(clip.future),
            "keyframe_indices": list(clip.keyframes),
            "keyframe_policy": policy if clip.history else "source_only",
            "render_pose_indices": list(clip.cameras),
            "target_first": clip.start,
            "condition": f"f{clip.condition}",
        }
        assert found == expected


@pytest.mark.parametrize("text", sorted(SAID["stable_seed"]))
def test_seeds(text: str) -> None:
    assert stable_seed(*text.split("|")) == SAID["stable_seed"][text]


@pytest.mark.parametrize("name", sorted(SAID["index_order"]))
def test_order_of_rows(name: str) -> None:
    rows, count, shuffle, seed = name.split(",")
    order = item_order(int(rows), int(seed), shuffle=shuffle == "True")
    assert list(islice(order, int(count))) == SAID["index_order"][name]


@pytest.mark.parametrize("prompt", sorted(SAID["prompt_cache_key"]))
def test_prompt_keys(prompt: str) -> None:
    assert prompt_key(SAID["model"], prompt) == SAID["prompt_cache_key"][prompt]


def test_rows() -> None:
    said = SAID["normalised_rows"]
    columns = said["meta"]["video_column"], said["meta"]["prompt_column"]
    given = [{name: row[name] for name in columns} for row in said["rows"]]
    found = read_training_list(given, trigger=said["meta"]["prompt_trigger"])
    assert (found.video_column, found.prompt_column) == columns
    assert len(found.videos) == said["meta"]["rows"]
    for number, (video, expected) in enumerate(zip(found.videos, said["rows"], strict=True)):
        assert expected["online_row_index"] == number
        assert video.id == expected["id"]
        assert video.video == expected[columns[0]]
        assert (video.caption, video.prompt) == (expected["prompt_raw"], expected["prompt"])
