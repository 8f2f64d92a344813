"""The streaming geometry network: layout, gate, positions, heads, resets and folders."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from flythrough.errors import GeometryError, WeightsError
from flythrough.models import ttt3r_blocks
from flythrough.models.converting import convert
from flythrough.models.geometry_config import config_from_dict, config_to_dict
from flythrough.models.licences import Licence
from flythrough.models.pi3x_blocks import rotary_2d
from flythrough.models.ttt3r import TTT3R, StreamState
from flythrough.models.ttt3r_blocks import frame_positions, mean_logits
from flythrough.models.ttt3r_config import TINY, TTT3RConfig
from flythrough.models.ttt3r_estimator import TTT3REstimator, ttt3r_estimator
from flythrough.models.ttt3r_files import load_ttt3r, save_ttt3r
from flythrough.models.ttt3r_folder import find_streaming
from flythrough.models.ttt3r_frames import focal_from_points, framed, framing
from flythrough.models.ttt3r_heads import decoded_pose
from flythrough.models.ttt3r_stream import chained, stream


@pytest.fixture(scope="module")
def net() -> TTT3R:
    torch.manual_seed(3)
    made = TTT3R(TINY).eval().requires_grad_(False)
    for parameter in made.parameters():  # initial biases of 0 would hide parts of the arithmetic
        parameter.add_(0.05 * torch.randn_like(parameter))
    return made


def frames(count: int, size: tuple[int, int] = (48, 64)) -> torch.Tensor:
    coarse = torch.rand(count, 3, 6, 8, generator=torch.Generator().manual_seed(2))
    return functional.interpolate(coarse, size, mode="bilinear")


def test_the_published_network_has_the_published_layout() -> None:
    with torch.device("meta"):
        full = TTT3R()
    assert sum(p.numel() for p in full.parameters()) == 793_307_858
    state = full.state_dict()
    assert len(state) == 1248
    shapes = {
        "patch_embed_ray_map.proj.weight": (1024, 6, 16, 16),
        "enc_blocks.23.attn.qkv.weight": (3072, 1024),
        "enc_blocks_ray_map.1.mlp.fc1.weight": (4096, 1024),
        "register_tokens.weight": (768, 1024),
        "dec_blocks_state.11.cross_attn.projk.weight": (768, 768),
        "dec_blocks.0.norm_y.bias": (768,),
        "pose_retriever.mem": (1, 256, 1536),
        "pose_retriever.write_blocks.1.mlp.fc1.weight": (6144, 1536),
        "downstream_head.dpt_self.act_postprocess.0.1.weight": (96, 96, 4, 4),
        "downstream_head.dpt_cross.scratch.layer_rn.3.weight": (256, 768, 3, 3),
        "downstream_head.dpt_rgb.head.4.weight": (3, 128, 1, 1),
        "downstream_head.final_transform.1.norm2.mlp.1.weight": (1536, 768),
        "downstream_head.pose_head.mlp.fc2.weight": (7, 3072),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert full.dec_blocks_state[0].attn.heads == 16
    assert full.dec_blocks[0].attn.heads == full.pose_retriever.read_blocks[0].attn.heads == 12


def test_outputs_have_the_size_of_the_picture(net: TTT3R) -> None:
    for size in ((48, 64), (64, 64), (80, 48)):
        images = frames(2, size)
        found, state = net.step(net.encode(images), net.start(2), size)
        assert found.points.shape == found.world_points.shape == found.rgb.shape == (2, *size, 3)
        assert found.confidence.shape == (2, *size)
        assert found.confidence.min() >= 1
        assert found.rgb.abs().max() <= 1
        assert found.pose.shape == (2, 4, 4)
        assert state.tokens.shape == (2, TINY.state_tokens, TINY.width)
        assert not state.fresh


def mean_logits_explicit(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """``mean_logits`` from the whole logit matrix: the plain way."""
    logits = queries.float() @ keys.float().transpose(-1, -2) * queries.shape[-1] ** -0.5
    return logits.mean(dim=(1, 3))


def test_the_cheap_gate_equals_the_explicit_one(
    net: TTT3R, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(5)
    queries, keys = (torch.randn(2, 4, n, 12, generator=generator) for n in (7, 31))
    assert torch.allclose(
        mean_logits(queries, keys), mean_logits_explicit(queries, keys), atol=1e-6
    )
    cheap = stream(net, frames(4))
    monkeypatch.setattr(ttt3r_blocks, "mean_logits", mean_logits_explicit)
    explicit = stream(net, frames(4))
    assert torch.allclose(cheap.points, explicit.points, atol=1e-5)


def test_the_gate_moves_each_token_by_its_own_rate(net: TTT3R) -> None:
    images = frames(2)
    first = net.step(net.encode(images[:1]), net.start(), (48, 64))[1]
    features = net.encode(images[1:])
    replaced = net.step(features, first, (48, 64), rule="cut3r")[1]
    gated = net.step(features, first, (48, 64), rule="ttt3r")[1]
    rate = (gated.tokens - first.tokens) / (replaced.tokens - first.tokens)
    per_token = rate.median(dim=-1).values
    assert torch.allclose(rate, per_token[..., None].expand_as(rate), atol=1e-2)
    assert (per_token > 0).all()
    assert (per_token < 1).all()
    assert per_token.std() > 1e-5
    assert torch.equal(gated.memory, replaced.memory)  # only the state is held back


def test_the_first_frame_is_taken_over_whole_and_samples_do_not_mix(net: TTT3R) -> None:
    features = net.encode(frames(2))
    both = net.step(features, net.start(2), (48, 64), rule="ttt3r")
    plain = net.step(features, net.start(2), (48, 64), rule="cut3r")
    assert torch.equal(both[1].tokens, plain[1].tokens)
    again = net.step(features.flip(0), both[1], (48, 64))
    alone = net.step(
        features[1:], StreamState(both[1].tokens[:1], both[1].memory[:1], False), (48, 64)
    )
    assert torch.allclose(again[1].tokens[:1], alone[1].tokens, atol=1e-5)


def test_a_negative_position_is_the_inverse_turn() -> None:
    x = torch.randn(1, 2, 1, 16, generator=torch.Generator().manual_seed(7))
    there = rotary_2d(16, torch.tensor([[1, 1]]))
    back = rotary_2d(16, torch.tensor([[-1, -1]]))
    assert torch.allclose(back(there(x)), x, atol=1e-6)
    assert not torch.allclose(there(x), x, atol=1e-2)
    assert frame_positions(2, 3, torch.device("cpu"))[0].tolist() == [-1, -1]


def test_poses_are_rigid() -> None:
    poses = decoded_pose(torch.randn(50, 7, generator=torch.Generator().manual_seed(9)))
    rotation = poses[:, :3, :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).expand(50, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(50), atol=1e-5)
    turned = decoded_pose(torch.tensor([[0.0, 0, 2, math.cos(0.3), 0, math.sin(0.3), 0]]))[0]
    assert turned[:3, 3].tolist() == pytest.approx([0, 0, math.exp(2) - 1], rel=1e-5)
    assert float(turned[0, 2]) == pytest.approx(math.sin(0.6), abs=1e-6)
    same = decoded_pose(torch.tensor([[0.0, 0, 2, -math.cos(0.3), 0, -math.sin(0.3), 0]]))[0]
    assert torch.allclose(turned, same, atol=1e-6)


def test_the_focal_length_of_a_pinhole_is_found() -> None:
    depth = 1 + torch.rand(2, 40, 60, generator=torch.Generator().manual_seed(4))
    u, v = torch.arange(60) + 0.5 - 30, torch.arange(40) + 0.5 - 20
    x, y = u / 73 * depth, v[:, None] / 73 * depth
    points = torch.stack([x, y, depth], dim=-1)
    points[:, :4, :9] += 0.5  # a few that disagree
    points[0, 0, 0, 2] = 0
    assert focal_from_points(points).tolist() == pytest.approx([73, 73], rel=1e-3)


def test_chunks_hang_together_at_the_frame_they_share() -> None:
    generator = torch.Generator().manual_seed(8)
    whole = decoded_pose(torch.randn(7, 7, generator=generator) * 0.5).double()
    whole = torch.linalg.inv(whole[0]) @ whole
    chunks = [whole[:4], torch.linalg.inv(whole[3]) @ whole[3:6]]
    nearly = decoded_pose(torch.randn(1, 7, generator=generator) * 1e-2)[0].double()
    chunks += [nearly @ torch.linalg.inv(whole[5]) @ whole[5:]]
    assert torch.allclose(chained(chunks), whole, atol=1e-6)


def test_a_reset_forgets_what_came_before(net: TTT3R) -> None:
    images = frames(5)
    reset = stream(net, images, reset_every=3)
    assert torch.equal(reset.points[:3], stream(net, images[:3], reset_every=None).points)
    later = stream(net, images[2:], reset_every=None)
    assert torch.equal(reset.points[3:], later.points[1:])
    moved = reset.world_from_camera[2] @ later.world_from_camera
    assert torch.allclose(reset.world_from_camera[2:], moved, atol=1e-5)
    with pytest.raises(GeometryError, match="1 frame"):
        stream(net, images, reset_every=1)


def test_framing_keeps_the_whole_picture_and_its_shape() -> None:
    frame = framing((480, 720), 512)
    assert frame.inner == (341, 512)
    assert frame.outer == (352, 512)
    images = frames(1, (480, 720))
    inside = framed(images, frame)
    assert inside.shape[-2:] == frame.outer
    assert torch.equal(inside[..., 0, :], inside[..., frame.top, :])
    assert frame.cut(inside.permute(0, 2, 3, 1)).shape == (1, 341, 512, 3)


def test_a_folder_gives_the_same_network_back(net: TTT3R, tmp_path: Path) -> None:
    save_ttt3r(net, tmp_path)
    loaded = load_ttt3r(tmp_path)
    own = net.state_dict()
    assert all(torch.equal(own[name], value) for name, value in loaded.state_dict().items())
    assert find_streaming(tmp_path).licence is None
    one = ttt3r_estimator(tmp_path).estimate(frames(2))
    assert torch.equal(one.depth, TTT3REstimator(net).estimate(frames(2)).depth)


def test_published_weights_are_not_for_commerce(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "TTT3R"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    licence = find_streaming(tmp_path).licence
    assert licence == Licence("CC-BY-NC-SA-4.0", assumed=True)
    assert "rules out commercial use" in str(licence.note("it"))


def test_weights_of_another_network_are_refused(net: TTT3R, tmp_path: Path) -> None:
    save_ttt3r(net, tmp_path)
    other = config_to_dict(TTT3RConfig(**{**vars(TINY), "memory_tokens": 7}))
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "TTT3R", **other}))
    with pytest.raises(WeightsError, match=r"pose_retriever\.mem"):
        load_ttt3r(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(WeightsError, match="not whole"):
        find_streaming(tmp_path)
    assert config_from_dict(TTT3RConfig, config_to_dict(TINY)) == TINY


def test_a_checkpoint_with_its_options_can_be_converted(net: TTT3R, tmp_path: Path) -> None:
    import argparse

    save_ttt3r(net, tmp_path)
    state = {f"module.{name}": value for name, value in net.state_dict().items()}
    torch.save({"args": argparse.Namespace(model="X()"), "model": state}, tmp_path / "w.pth")
    convert(tmp_path / "w.pth", tmp_path / "model.safetensors")
    loaded = load_ttt3r(tmp_path)
    assert torch.equal(loaded.pose_token, net.pose_token)
