"""Training items of ST-Diff, and a run of two steps that exports a usable part."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from flythrough.errors import InputError
from flythrough.models.catalog import find_model
from flythrough.models.loading import load_st_diff, load_transformer
from flythrough.models.st_diff import StDiff
from flythrough.sampling.asynchronous import training_levels
from flythrough.training import hint_refill, nano_st_diff, worldwarp
from flythrough.training.hint_refill import HintDraw, places_filled
from flythrough.training.loop import Loop, LoopSettings, Record, learning_rate_at
from flythrough.training.nano import NanoRun, run
from flythrough.training.nano_st_diff import ST_DIFF_CONFIG, take_over
from flythrough.training.refill import WorldVideos
from flythrough.training.st_diff import (
    EncodedHints,
    StDiffSettings,
    draw_levels,
    training_item,
)
from flythrough.training.worldwarp import WorldWarpRun
from throwaway import TEXT_DIM

TABLE = training_levels()


def clips(count: int) -> EncodedHints:
    source = torch.Generator().manual_seed(1)
    shape = (count, 4, 4, 4, 6)
    valid = torch.zeros(count, 4, 4, 6, dtype=torch.bool)
    valid[..., 2:] = True
    return EncodedHints(
        clean=torch.randn(shape, generator=source),
        hint=torch.randn(shape, generator=source),
        valid=valid,
        context=torch.arange(count) % 2 + 1,
        text=torch.zeros(count, 3, 8),
    )


def test_levels_are_drawn_for_frames_and_regions_as_stated() -> None:
    count = 600
    valid = clips(count).valid
    level = draw_levels(valid, torch.Generator().manual_seed(2), TABLE, StDiffSettings())
    filled, rendered = level[:, :, 0, 0], level[:, :, 0, 5]
    assert (level[..., :2] == filled[..., None, None]).all()
    assert (level[..., 2:] == rendered[..., None, None]).all()
    steady = (rendered == rendered[:, :1]).all(1) & (filled == filled[:, :1]).all(1)
    tied = steady & (filled == rendered).all(1)
    assert abs(float(steady.float().mean()) - 0.6) < 0.07
    assert abs(float(tied.float().mean()) - 0.2) < 0.06
    assert (filled >= rendered)[steady].all()
    assert float(level.min()) > 0
    assert float(level.max()) == 1.0


def test_one_level_everywhere_is_drawn_evenly() -> None:
    settings = StDiffSettings(independent=0.0, tied=1.0)
    level = draw_levels(clips(2000).valid, torch.Generator().manual_seed(5), TABLE, settings)
    first = level[:, 0, 0, 0]
    assert (level == first[:, None, None, None]).all()
    places = (TABLE[None] == first[:, None]).float().argmax(1) / len(TABLE)
    assert abs(float(places.mean()) - 1 / 2) < 0.02
    assert abs(float(places.square().mean()) - 1 / 3) < 0.02


@pytest.mark.parametrize("target", ["velocity", "consistent"])
def test_an_item_says_where_the_truth_lies(target: str) -> None:
    given = clips(64)
    settings = StDiffSettings(target=target)  # type: ignore[arg-type]
    item = training_item(given, torch.Generator().manual_seed(3), TABLE, settings)
    level = item.level[:, None]
    known = ~item.counts
    context = known[:, :, 0, 0].sum(1)
    dropped = context == 0
    assert torch.equal(context[~dropped], given.context[~dropped])
    assert 0 < int(dropped.sum()) < 20
    assert (item.level[known] == 0).all()
    assert (item.level[item.counts] > 0).all()
    still = known[:, None].expand_as(given.clean)
    assert torch.equal(item.x[still], given.clean[still])
    # Filled cells start from the truth: going all the way along the target arrives there.
    sure = (item.level > 0.1) & item.counts
    filled = (sure & ~given.valid)[:, None].expand_as(item.x)
    arrived = item.x - level * item.target
    assert torch.allclose(arrived[filled], given.clean[filled], atol=1e-5)
    rendered = (sure & given.valid)[:, None].expand_as(item.x)
    wanted = given.clean
    if target == "velocity":
        wanted = (1 - level) * given.hint + level * given.clean
    assert torch.allclose(arrived[rendered], wanted[rendered], atol=1e-5)


def test_the_small_network_has_about_12_million_parameters() -> None:
    with torch.device("meta"):
        net = StDiff(**ST_DIFF_CONFIG)
    assert 12_000_000 < sum(p.numel() for p in net.parameters()) < 13_000_000


def test_weights_of_a_helios_are_taken_over(tiny_model: Path) -> None:
    other = load_transformer(tiny_model / "transformer", torch.float32)
    net = StDiff(
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=32,
        ffn_dim=64,
        text_dim=TEXT_DIM,
        freq_dim=32,
    )
    assert take_over(net, other) == len(list(net.parameters()))
    assert torch.equal(net.scale_shift_table, other.norm_out.scale_shift_table)
    assert torch.equal(net.blocks[0].attn1.to_q.weight, other.blocks[0].attn1.to_q.weight)


def wall(_stream: None, step: int, rank: int) -> WorldVideos:
    """Two clips of 9 frames that go sideways past a wall 3 m away."""
    source = torch.Generator().manual_seed(10 * step + rank)
    pictures = torch.rand(2, 3, 8, 12, generator=source)
    rgb = torch.nn.functional.interpolate(pictures, (64, 96), mode="bicubic").clamp(0, 1)
    poses = torch.eye(4).repeat(2, 9, 1, 1)
    poses[:, :, 0, 3] = torch.arange(9) * 0.1
    matrix = torch.tensor([[80.0, 0, 48], [0, 80, 32], [0, 0, 1]])
    return WorldVideos(
        rgb=rgb[:, :, None].expand(-1, -1, 9, -1, -1).contiguous(),
        depth=torch.full((2, 9, 64, 96), 3.0),
        valid=torch.ones(2, 9, 64, 96, dtype=torch.bool),
        world_from_camera=poses,
        intrinsics=matrix.expand(2, 9, 3, 3),
        captions=("a wall", "another wall"),
    )


def test_two_steps_and_the_exported_part(
    tiny_model: Path, tiny_st_diff: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nano_st_diff, "CHUNK_FRAMES", 9)
    monkeypatch.setattr(nano_st_diff, "WorldStream", lambda *_: None)
    monkeypatch.setattr(nano_st_diff, "world_videos", wall)
    monkeypatch.setitem(nano_st_diff.DEFAULTS["worldwarp"], "steps", 2)
    base, folder = tmp_path / "base", tmp_path / "run"
    shutil.copytree(tiny_model, base)
    shutil.copytree(tiny_st_diff / "transformer", base / "st_diff")
    made = NanoRun(
        part="stdiff", folder=folder, base=base, steps=2, batch=2, size=(64, 96), device="cpu"
    )
    figures = run(made)
    assert figures.keys() == {"hint_mse", "rendered_mse", "filled_mse"}
    assert (folder / "stdiff-000002.png").is_file()
    before = load_st_diff(base / "st_diff", torch.float32)
    after = load_st_diff(folder / "st_diff", torch.float32)
    assert (before.proj_out.weight - after.proj_out.weight).abs().max() > 1e-5
    config = json.loads((folder / "st_diff" / "config.json").read_text())
    assert config["_class_name"] == "WanTransformer3DModel"
    shutil.rmtree(base / "st_diff")
    shutil.copytree(folder / "st_diff", base / "st_diff")
    assert find_model(str(base)).st_diff == base / "st_diff"


def test_places_of_clips_seen_too_little_go_to_the_others() -> None:
    assert places_filled(torch.tensor([0.9, 0.1, 0.5, 0.0, 0.1]), 0.2) == [0, 0, 2, 2, 0]
    assert places_filled(torch.tensor([0.1, 0.15, 0.0]), 0.2) == [1, 1, 1]
    assert places_filled(torch.tensor([0.3, 0.2]), 0.2) == [0, 1]


def mostly_unseen(_stream: None, step: int, rank: int) -> WorldVideos:
    """As :func:`wall`; in every second refill one clip turns away at once."""
    made = wall(_stream, step, rank)
    if step % 2:
        made.world_from_camera[1, 1:, :3, :3] = torch.tensor([[-1.0, 0, 0], [0, 1, 0], [0, 0, -1]])
    return made


def test_a_resumed_run_with_a_dropped_clip_has_the_weights_of_an_unbroken_one(
    tiny_model: Path, tiny_st_diff: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nano_st_diff, "CHUNK_FRAMES", 9)
    monkeypatch.setattr(nano_st_diff, "WorldStream", lambda *_: None)
    monkeypatch.setattr(nano_st_diff, "world_videos", mostly_unseen)
    monkeypatch.setattr(nano_st_diff, "HintDraw", partial(HintDraw, least_seen=0.7))
    chosen: list[list[int]] = []

    def told(seen: torch.Tensor, least: float) -> list[int]:
        chosen.append(places_filled(seen, least))
        return chosen[-1]

    monkeypatch.setattr(hint_refill, "places_filled", told)
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    shutil.copytree(tiny_st_diff / "transformer", base / "st_diff")
    settings = LoopSettings(steps=7, learning_rate=1e-3, warmup=1, save_every=5, log_every=1)

    def loop(name: str) -> Loop:
        made = NanoRun(
            part="stdiff", folder=tmp_path, base=base, batch=2, size=(64, 96), device="cpu"
        )
        task, _ = nano_st_diff.build_st_diff(made, torch.device("cpu"))
        return Loop(task, settings, tmp_path / name, torch.device("cpu"))

    loop("whole").run()
    assert [0, 0] in chosen
    assert [0, 1] in chosen

    def leave(record: Record) -> None:
        if record.step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop("broken").run(leave)
    again = loop("broken")
    assert again.resume()
    assert again.step == 5
    again.run()
    states = [load_file(tmp_path / n / "checkpoint.safetensors") for n in ("whole", "broken")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_run_without_a_codec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--base FOLDER"):
        run(NanoRun(part="stdiff", folder=tmp_path, steps=1, device="cpu"))
    with pytest.raises(InputError, match="--warp-stages has no effect"):
        run(NanoRun(part="stdiff", folder=tmp_path, warp_stages=3, device="cpu"))


def test_the_published_recipe_trains_a_wan_folder(
    tiny_st_diff: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worldwarp, "WorldStream", lambda *_: None)
    monkeypatch.setattr(worldwarp, "world_videos", wall)
    asked = WorldWarpRun(
        folder=tmp_path / "run", base=tiny_st_diff, steps=2, batch=1, frames=9, size=(64, 96),
        warmup=1, learning_rate=1e-3, device="cpu", precision="fp32",
    )  # fmt: skip
    figures = worldwarp.run(asked)
    assert figures.keys() == {"hint_mse", "rendered_mse", "filled_mse"}
    after = load_st_diff(tmp_path / "run" / "st_diff", torch.float32)
    before = load_st_diff(tiny_st_diff / "transformer", torch.float32)
    assert (before.proj_out.weight - after.proj_out.weight).abs().max() > 1e-5


def test_the_published_schedule_is_the_standard(tiny_st_diff: Path, tmp_path: Path) -> None:
    settings = worldwarp.loop_settings(WorldWarpRun(folder=tmp_path, base=tiny_st_diff))
    assert (settings.steps, settings.learning_rate, settings.precision) == (10_000, 5e-5, "bf16")
    rates = [learning_rate_at(step / 10_000, step, settings) for step in (0, 499, 999, 9_999)]
    assert rates == pytest.approx([5e-8, 2.5e-5, 5e-5, 5e-5])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch": 0}, "--batch 0"),
        ({"frames": 10}, "--chunk-frames 10"),
        ({"size": (64, 72)}, "multiple of 16"),
        ({"recipe": "nano", "warmup": 3}, "--warmup has no effect"),
        ({"base": Path("nowhere")}, "is no folder"),
    ],
)
def test_a_run_that_cannot_work_is_refused(
    tiny_st_diff: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    given = {"folder": tmp_path, "base": tiny_st_diff, "device": "cpu", **changes}
    with pytest.raises(InputError, match=words):
        worldwarp.check_run(WorldWarpRun(**given))  # type: ignore[arg-type]


def test_a_helios_has_no_st_diff_to_train(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs an ST-Diff"):
        worldwarp.check_run(WorldWarpRun(folder=tmp_path, base=tiny_model))
