"""Geometry losses: the scale fit is exact, truth has no loss, every term teaches."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flythrough.models.pi3x import Pi3XRaw
from flythrough.models.pi3x_priors import pixel_slopes, with_translation
from flythrough.training.geometry_losses import (
    GeometryTruth,
    LossWeights,
    pi3x_losses,
    weighted_median_scale,
)

BATCH, VIEWS, HEIGHT, WIDTH = 2, 3, 14, 28


def turned(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 0], [0, 0, 0, 1]])


def scene() -> GeometryTruth:
    source = torch.Generator().manual_seed(5)
    wave = torch.linspace(0, 3, WIDTH).sin() + torch.linspace(0, 1, HEIGHT)[:, None]
    depth = (3 + 0.2 * wave).expand(BATCH, VIEWS, HEIGHT, WIDTH).clone()
    depth = depth * (1 + torch.rand(BATCH, VIEWS, 1, 1, generator=source))
    poses = torch.stack([turned(0.1 * i) for i in range(BATCH * VIEWS)])
    poses[:, :3, 3] = torch.randn(BATCH * VIEWS, 3, generator=source)
    camera = torch.tensor([[25.0, 0, WIDTH / 2], [0, 25, HEIGHT / 2], [0, 0, 1]])
    valid = torch.ones_like(depth, dtype=torch.bool)
    valid[:, 0, :3] = False
    return GeometryTruth(
        depth=torch.where(valid, depth, 0.0),
        valid=valid,
        intrinsics=camera.expand(BATCH, VIEWS, 3, 3),
        world_from_camera=poses.reshape(BATCH, VIEWS, 4, 4),
    )


def perfect(truth: GeometryTruth, scale: float = 0.4) -> Pi3XRaw:
    """The prediction that is right up to ``scale`` and in another world frame."""
    moved = turned(1.0) @ truth.world_from_camera
    moved = with_translation(moved, moved[..., :3, 3] * scale)
    return Pi3XRaw(
        xy=pixel_slopes(truth.intrinsics, HEIGHT, WIDTH),
        z=torch.where(truth.valid, truth.depth, 5.0) * scale,
        conf=torch.where(truth.valid, 20.0, -20.0),
        poses=moved,
        metric=torch.full((BATCH,), 1 / scale),
    )


def test_truth_has_no_loss() -> None:
    truth = scene()
    losses = pi3x_losses(perfect(truth), truth)
    assert set(losses) == {
        *("rays", "depth", "xy", "normal", "metric", "conf", "trans", "rot", "total"),
    }
    for name in ("rays", "depth", "xy", "metric", "trans"):
        assert float(losses[name]) < 1e-5, name
    assert float(losses["conf"]) < 1e-4
    assert float(losses["rot"]) < 2e-3  # the arc cosine is clamped just short of zero
    assert float(losses["normal"]) < 1e-4  # angles below one degree count as one degree


@pytest.mark.parametrize(
    ("term", "field"),
    [
        ("rays", "xy"),
        ("depth", "z"),
        ("normal", "z"),
        ("metric", "metric"),
        ("conf", "conf"),
        ("trans", "poses"),
        ("rot", "poses"),
    ],
)
def test_each_term_sees_its_error(term: str, field: str) -> None:
    truth = scene()
    source = torch.Generator().manual_seed(9)
    right = perfect(truth)
    value = getattr(right, field)
    if field == "poses":
        wrong = value.clone()
        wrong[:, 1] = wrong[:, 1] @ turned(0.4)
        wrong[:, 1, :3, 3] += 0.3
    elif field == "conf":
        wrong = -value
    else:
        wrong = value * (1 + 0.2 * torch.randn(value.shape, generator=source))
    changed = Pi3XRaw(**{**vars(right), field: wrong})
    assert float(pi3x_losses(changed, truth)[term]) > 3 * float(pi3x_losses(right, truth)[term])


def test_sky_is_pushed_to_low_confidence_and_nothing_else() -> None:
    truth = scene()
    right = perfect(truth)
    leaves = {k: v.clone().requires_grad_() for k, v in vars(right).items()}
    with torch.no_grad():
        leaves["conf"].zero_()
    pi3x_losses(Pi3XRaw(**leaves), truth, LossWeights(rays=0))["total"].backward()
    sky = ~truth.valid
    conf, z = leaves["conf"].grad, leaves["z"].grad
    assert conf is not None
    assert z is not None
    assert bool((conf[sky] > 0).all())
    assert bool((z[sky] == 0).all())


def test_gradients_are_finite_for_poor_predictions() -> None:
    truth = scene()
    raw = Pi3XRaw(
        xy=torch.zeros(BATCH, VIEWS, HEIGHT, WIDTH, 2, requires_grad=True),
        z=torch.ones(BATCH, VIEWS, HEIGHT, WIDTH, requires_grad=True),
        conf=torch.zeros(BATCH, VIEWS, HEIGHT, WIDTH, requires_grad=True),
        poses=torch.eye(4).expand(BATCH, VIEWS, 4, 4).clone().requires_grad_(),
        metric=torch.ones(BATCH, requires_grad=True),
    )
    pi3x_losses(raw, truth)["total"].backward()
    for name, value in vars(raw).items():
        assert value.grad is not None, name
        assert torch.isfinite(value.grad).all(), name


def test_one_view_and_no_valid_pixel_are_defined() -> None:
    truth = scene()
    blind = GeometryTruth(
        torch.zeros_like(truth.depth)[:, :1],
        torch.zeros_like(truth.valid)[:, :1],
        truth.intrinsics[:, :1],
        truth.world_from_camera[:, :1],
    )
    right = perfect(truth)
    raw = Pi3XRaw(
        right.xy[:, :1], right.z[:, :1], right.conf[:, :1], right.poses[:, :1], right.metric
    )
    losses = pi3x_losses(raw, blind)
    assert all(torch.isfinite(value) for value in losses.values())
    assert float(losses["trans"]) == float(losses["rot"]) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_scale_is_the_best_of_all(seed: int, points: int) -> None:
    source = torch.Generator().manual_seed(seed)
    predicted = torch.randn(3, points, generator=source)
    truth = torch.randn(3, points, generator=source)
    weight = torch.rand(3, points, generator=source) * (
        torch.rand(3, points, generator=source) > 0.3
    )
    scale = weighted_median_scale(predicted, truth, weight)

    def cost(s: Tensor) -> Tensor:
        return (weight * (s[:, None] * predicted - truth).abs()).sum(1)

    # A piecewise linear convex function is least at one of its kinks.
    kinks = truth / predicted
    best = torch.stack([cost(kinks[:, i]) for i in range(points)]).amin(0)
    heavy = weight.sum(1) > 0
    assert bool((cost(scale)[heavy] <= best[heavy] * (1 + 1e-4) + 1e-5).all())
    assert bool((scale[~heavy] == 1).all())
