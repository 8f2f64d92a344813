"""Pi3X pieces that recorded numbers do not cover: files, messages, gradients, rotations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flythrough.errors import GeometryError, InputError, WeightsError
from flythrough.models.geometry_config import config_from_dict, config_to_dict
from flythrough.models.pi3x import Pi3X
from flythrough.models.pi3x_config import (
    NANO_6M,
    NANO_9M,
    Pi3XConfig,
)
from flythrough.models.pi3x_files import CONFIG_FILE, INDEX_FILE, load_pi3x, save_pi3x
from flythrough.models.pi3x_heads import nearest_rotation
from flythrough.models.pi3x_priors import Priors, pixel_slopes, rigid_inverse
from flythrough.models.pi3x_prope import attention_mask

SMALL = Pi3XConfig(
    width=16,
    heads=2,
    grid=2,
    encoder_depth=1,
    depth_encoder_depth=1,
    decoder_depth=4,
    inject_after=(1,),
    head_width=16,
    head_heads=2,
    head_depth=1,
    conv_in=16,
    conv_widths=(16, 16, 16),
    camera_width=12,
    metric_width=16,
    metric_heads=2,
    metric_depth=1,
    layer_scale=0.1,
)


def small(*, multimodal: bool = True) -> Pi3X:
    torch.manual_seed(0)
    return Pi3X(config_from_dict(Pi3XConfig, {**config_to_dict(SMALL), "multimodal": multimodal}))


def images(views: int = 2) -> torch.Tensor:
    return torch.rand(1, views, 3, 28, 42, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("config", "count"), [(NANO_6M, 5_769_073), (NANO_9M, 9_145_553)])
def test_nano_sizes(config: Pi3XConfig, count: int) -> None:
    with torch.device("meta"):
        net = Pi3X(config)
    assert sum(p.numel() for p in net.parameters()) == count


def test_every_parameter_can_be_trained() -> None:
    net = small()
    priors = Priors(
        depths=torch.rand(1, 2, 28, 42) + 1,
        rays=torch.cat([torch.rand(1, 2, 28, 42, 2), torch.ones(1, 2, 28, 42, 1)], dim=-1),
        poses=torch.eye(4).expand(1, 2, 4, 4).clone(),
    )
    out = net(images(), priors)
    (out.points.square().mean() + out.conf.mean() + out.camera_poses.sum()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_save_and_load_whole_and_in_shards(tmp_path: Path) -> None:
    net = small().eval()
    save_pi3x(net, tmp_path, dtype=torch.float32)
    whole = load_pi3x(tmp_path)
    assert whole.config == SMALL
    expected = net(images()).points
    assert torch.equal(whole(images()).points, expected)
    save_pi3x(net, tmp_path, dtype=torch.float32, shard_bytes=60_000)
    assert (tmp_path / INDEX_FILE).is_file()
    assert not (tmp_path / "model.safetensors").exists()
    assert max(f.stat().st_size for f in tmp_path.glob("*.safetensors")) < 90_000
    assert torch.equal(load_pi3x(tmp_path)(images()).points, expected)


def test_multimodal_parts_can_be_left_out(tmp_path: Path) -> None:
    net = small().eval()
    save_pi3x(net, tmp_path, dtype=torch.float32)
    plain = load_pi3x(tmp_path, multimodal=False)
    assert torch.equal(plain(images()).points, net(images()).points)
    save_pi3x(plain, tmp_path)
    with pytest.raises(WeightsError, match="no parts that read priors"):
        load_pi3x(tmp_path, multimodal=True)


def test_image_statistics_may_be_absent(tmp_path: Path) -> None:
    net = small()
    save_pi3x(net, tmp_path, dtype=torch.float32)
    state = load_file(tmp_path / "model.safetensors")
    kept = {k: v for k, v in state.items() if not k.startswith("image_")}
    save_file(kept, tmp_path / "model.safetensors")
    assert torch.equal(load_pi3x(tmp_path).image_mean, net.image_mean)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no geometry folder"):
        load_pi3x(tmp_path / "nowhere")
    save_pi3x(small(), tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    token = state.pop("metric_token")
    save_file(state, file)
    with pytest.raises(WeightsError, match="lack metric_token"):
        load_pi3x(tmp_path)
    save_file({**state, "metric_token": token[..., :2].contiguous()}, file)
    with pytest.raises(WeightsError, match="misshaped metric_token"):
        load_pi3x(tmp_path)
    save_file({**state, "metric_token": token, "extra": token.clone()}, file)
    with pytest.raises(WeightsError, match="unknown extra"):
        load_pi3x(tmp_path)
    file.write_bytes(b"broken")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_pi3x(tmp_path)
    file.unlink()
    with pytest.raises(WeightsError, match="lacks a weight file"):
        load_pi3x(tmp_path)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"_class_name": "Other"}', '{"width": 17}', '{"a": 1}']
)
def test_wrong_configuration_files(tmp_path: Path, text: str) -> None:
    (tmp_path / CONFIG_FILE).write_text(text)
    with pytest.raises(WeightsError):
        load_pi3x(tmp_path)


@pytest.mark.parametrize(
    "options",
    [{"width": 20}, {"decoder_depth": 5}, {"inject_after": (2,)}, {"conv_widths": (64, 32, 8)}],
)
def test_unusable_configuration(options: dict) -> None:
    with pytest.raises(InputError):
        Pi3XConfig(**{**vars(SMALL), **options})


def test_configuration_survives_json() -> None:
    assert config_from_dict(Pi3XConfig, json.loads(json.dumps(config_to_dict(SMALL)))) == SMALL


@pytest.mark.parametrize("shape", [(1, 1, 3, 30, 42), (1, 3, 28, 42), (1, 0, 3, 28, 42)])
def test_unusable_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="multiples of 14"):
        small()(torch.rand(shape))


@pytest.mark.parametrize(
    ("priors", "words"),
    [
        (Priors(depths=torch.ones(1, 2, 14, 14)), "depths has shape"),
        (Priors(use_depth=torch.ones(1, 2, dtype=torch.bool)), "not given"),
        (Priors(depths=torch.full((1, 2, 28, 42), torch.nan)), "not finite"),
    ],
)
def test_unusable_priors(priors: Priors, words: str) -> None:
    with pytest.raises(GeometryError, match=words):
        small()(images(), priors)


def test_priors_need_a_multimodal_network() -> None:
    with pytest.raises(GeometryError, match="without priors"):
        small(multimodal=False)(images(), Priors())


def test_nearest_rotation_is_proper_and_its_gradient_is_exact() -> None:
    torch.manual_seed(3)
    matrix = torch.randn(6, 3, 3, dtype=torch.float64, requires_grad=True)
    rotation = nearest_rotation(matrix)
    identity = torch.eye(3, dtype=torch.float64).expand(6, 3, 3)
    torch.testing.assert_close(rotation @ rotation.mT, identity)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(6, dtype=torch.float64))
    assert torch.autograd.gradcheck(nearest_rotation, (matrix,))


def test_rotation_gradient_is_finite_at_a_rotation() -> None:
    matrix = torch.eye(3)[None].clone().requires_grad_()
    nearest_rotation(matrix)[0, 0, 1].backward()
    assert matrix.grad is not None
    assert torch.isfinite(matrix.grad).all()
    assert float(matrix.grad.abs().max()) > 0.1


def test_rigid_inverse_and_slopes() -> None:
    rotation = nearest_rotation(torch.randn(3, 3, 3))
    pose = torch.eye(4).repeat(3, 1, 1)
    pose[:, :3, :3], pose[:, :3, 3] = rotation, torch.randn(3, 3)
    torch.testing.assert_close(rigid_inverse(pose) @ pose, torch.eye(4).expand(3, 4, 4))
    camera = torch.tensor([[20.0, 0, 4], [0, 10, 3], [0, 0, 1]])
    slopes = pixel_slopes(camera, 6, 8)
    torch.testing.assert_close(slopes[2, 5], torch.tensor([1.5 / 20, -0.5 / 10]))


def test_views_that_are_off_see_only_themselves() -> None:
    mask = attention_mask(torch.tensor([[True, False, True]]), patches=2)
    assert mask is not None
    views = mask[0, 0, ::2, ::2]
    assert views.tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    assert attention_mask(torch.ones(1, 3, dtype=torch.bool), patches=2) is None
