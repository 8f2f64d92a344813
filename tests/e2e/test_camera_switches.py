"""Every switch of the camera method changes the video and is honoured by continue and rewind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import flythrough as ft
from flythrough.media.video import write_video
from flythrough.rollout import store
from throwaway import Command

PATH = "backward 0.3; pan left 25deg"  # leaves much unseen
SWITCHES: dict[str, list[object]] = {
    "band": ["--warp-band", "patch-mid"],
    "threshold": ["--visible-threshold", 0.9],
    "no align": ["--no-align"],
    "no select": ["--no-select"],
    "preset": ["--preset", "realtime"],
    "preset in part": ["--preset", "realtime", "--warp-band", "short", "--steps", "2,1,1"],
}


def test_the_note_names_what_stays_as_given(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    words = ["generate", photo, "--camera", PATH, "--model", tiny_model, "--frames", 33]
    answer = flythrough(*words, *SWITCHES["preset in part"], "-o", tmp_path / "o.mp4")
    assert "as given: --steps, --warp-band." in answer.err


@pytest.mark.parametrize("name", list(SWITCHES))
def test_a_switch_changes_the_video_and_continues_with_it(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path, name: str
) -> None:
    words = ["generate", photo, "--camera", PATH, "--model", tiny_model, "--frames", 50]
    plain, switched = tmp_path / "plain", tmp_path / "switched"
    assert flythrough(*words, "--rollout", plain, "-o", tmp_path / "p.mp4").status == 0
    more = [*SWITCHES[name], "--rollout", switched, "-o", tmp_path / "s.mp4"]
    whole = flythrough(*words, *more)
    assert whole.status == 0, whole.err
    before, after = store.load(plain), store.load(switched)
    for one, other in zip(before.chunks, after.chunks, strict=True):
        assert np.abs(one.latents - other.latents).max() > 1e-3
    assert flythrough("rewind", switched, "--chunks", 1).status == 0
    again = flythrough("continue", switched)
    assert again.status == 0, again.err
    assert again.result["digest"] == whole.result["digest"]
    assert flythrough("rewind", switched, "--chunks", 2).status == 0
    assert flythrough("continue", switched).result["digest"] == whole.result["digest"]


def test_switches_work_with_a_given_warp(
    flythrough: Command, tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    warp, mask = tmp_path / "warp.mp4", tmp_path / "mask.mp4"
    levels = np.linspace(0, 255, 33 * 64 * 128 * 3).reshape(33, 64, 128, 3).astype(np.uint8)
    write_video(warp, levels, 16.0)
    seen = np.zeros_like(levels)
    seen[:, :40] = 255
    write_video(mask, seen, 16.0)
    words = ["generate", photo, "--warp", warp, "--warp-mask", mask, "--model", tiny_model]
    words += ["--frames", 33, "-o", tmp_path / "o.mp4"]
    latents = []
    for number, more in enumerate([[], *SWITCHES.values()]):
        folder = tmp_path / f"run{number}"
        answer = flythrough(*words, *more, "--rollout", folder)
        assert answer.status == 0, answer.err
        assert "mesh" not in answer.err  # nothing is rendered
        latents.append(store.load(folder).latents())
    for first, one in enumerate(latents):
        assert all(np.abs(one - other).max() > 1e-3 for other in latents[first + 1 :])


def test_the_pipeline_takes_the_same_switches(tiny_model: Path, photo: Path) -> None:
    pipe = ft.load(tiny_model)
    plain = pipe(photo, camera=PATH, frames=33)
    mid = pipe(photo, camera=PATH, frames=33, warp_band="patch-mid", visible_threshold=0.3)
    assert np.abs(plain.rollout.latents() - mid.rollout.latents()).max() > 1e-3
    assert mid.rollout.spec.settings["warp_band"] == "patch_mid"
    with pytest.warns(UserWarning, match="preset realtime"):
        rollout = pipe.start(photo, preset="realtime")
    stepped = pipe.step(rollout, "forward 0.2")
    assert stepped.spec.settings["steps"] == (1, 1, 1)
    with pytest.raises(ft.InputError, match="no effect without a camera"):
        pipe(photo, frames=33, align=False)
    with pytest.raises(TypeError, match="'speed' is no argument"):
        pipe(photo, camera=PATH, speed=3)  # type: ignore[call-arg]
