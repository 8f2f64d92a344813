"""Losses for training the Pi3X geometry network on exact depth and cameras.

The published set (Wang et al., "Pi3", arXiv:2507.13347, and the Pi3X successor's training code),
rewritten batched and free of host synchronisation. Predictions are compared up to one scale per
sample, the one that minimises the weighted L1 distance of all points; only the metric term ties
that scale to metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import radians

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.models.pi3x import Pi3XRaw
from flythrough.models.pi3x_priors import pixel_slopes, rigid_inverse, with_translation

_ALIGN_POINTS = 4096  # points per sample that the scale is fitted to
_NEAR_FLOOR = 0.1  # depth weights stop growing below this share of a view's mean depth
_MIN_ANGLE, _MAX_ANGLE, _SMOOTH_ANGLE = radians(1), radians(90), radians(3)
_EDGE = 0.03
_HUBER = 0.1
_SHARPNESS = 50.0  # of the confidence target exp(-50 e)
_TINY = 1e-6
_FLAT = 1e-10  # triangles smaller than this have no direction


@dataclass(frozen=True, eq=False)
class GeometryTruth:
    """Exact geometry of B samples of N views.

    depth: [B,N,H,W] z-depth in metres. valid: [B,N,H,W] bool; everything else counts as sky.
    intrinsics: [B,N,3,3] pixels, centres at half-integers. world_from_camera: [B,N,4,4].
    """

    depth: Tensor
    valid: Tensor
    intrinsics: Tensor
    world_from_camera: Tensor


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Published weights; ``xy`` (sideways error of points) is published as a figure only."""

    rays: float = 1.0
    depth: float = 1.0
    xy: float = 0.0
    normal: float = 1.0
    metric: float = 1.0
    conf: float = 0.05
    trans: float = 10.0
    rot: float = 0.1


@dataclass(frozen=True, eq=False)
class _Aligned:
    """Prediction and truth in units of the truth's mean point distance.

    ``scale`` [B] took the prediction there; ``size`` [B] is the truth's own unit in metres over the
    prediction's, so that ``scale * size`` is the right metric factor.
    """

    points: Tensor
    truth: Tensor
    translation: Tensor
    truth_translation: Tensor
    weight: Tensor
    scale: Tensor
    size: Tensor


def pi3x_losses(
    raw: Pi3XRaw, truth: GeometryTruth, weights: LossWeights | None = None
) -> dict[str, Tensor]:
    """Every loss term as a scalar, and their weighted sum under "total". All float32.

    Terms: rays (slopes), depth and xy (weighted L1 of aligned points), normal, metric (squared
    log), conf (cross-entropy), trans and rot (relative poses of all view pairs).
    """
    weights = weights or LossWeights()
    with torch.autocast(raw.xy.device.type, enabled=False):
        aligned = _align(raw, truth)
        slopes = pixel_slopes(truth.intrinsics.float(), *truth.depth.shape[-2:])
        error = aligned.weight[..., None] * (aligned.points - aligned.truth).abs()
        trans, rot = _pose_losses(raw, truth, aligned)
        terms = {
            "rays": (raw.xy - slopes).abs().mean(),
            "depth": _mean(error[..., 2], truth.valid),
            "xy": _mean(error[..., :2].mean(-1), truth.valid),
            "normal": _normal_loss(aligned, truth),
            "metric": _metric_loss(raw, aligned),
            "conf": _confidence_loss(raw.conf, error.detach().mean(-1), truth.valid),
            "trans": trans,
            "rot": rot,
        }
        total = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
    return terms | {"total": total}


def weighted_median_scale(predicted: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """The scale s [B] that minimises sum_i weight_i |s predicted_i - truth_i|, all [B,M].

    Exact: the weighted median of truth / predicted under weights weight * |predicted|. Samples in
    which nothing has weight get 1.
    """
    mass = weight * predicted.abs()
    usable = mass > 0
    ratio = torch.where(usable, truth / torch.where(usable, predicted, 1.0), 0.0)
    ratio, order = ratio.sort(dim=1)
    heap = mass.gather(1, order).double().cumsum(dim=1)
    half = heap[:, -1:] / 2
    index = (heap < half).sum(dim=1, keepdim=True).clamp(max=ratio.shape[1] - 1)
    found = ratio.gather(1, index)[:, 0]
    return torch.where(usable.any(dim=1), found, 1.0)


def _align(raw: Pi3XRaw, truth: GeometryTruth) -> _Aligned:
    """Normalise both sides by their mean point distance, then fit one scale per sample."""
    depth = torch.where(truth.valid, truth.depth.float(), 0.0)
    slopes = pixel_slopes(truth.intrinsics.float(), *depth.shape[-2:])
    target = functional.pad(slopes, (0, 1), value=1.0) * depth[..., None]
    points = raw.local_points.float()
    unit = _mean_distance(target, truth.valid)
    own_unit = _mean_distance(points, truth.valid)
    target = target / unit[:, None, None, None, None]
    points = points / own_unit[:, None, None, None, None]
    weight = _depth_weight(target[..., 2], truth.valid)
    with torch.no_grad():
        scale = _fit_scale(points, target, weight)
    poses = rigid_inverse(truth.world_from_camera[:, :1].float()) @ truth.world_from_camera.float()
    return _Aligned(
        points=points * scale[:, None, None, None, None],
        truth=target,
        translation=raw.poses[..., :3, 3] * (scale / own_unit)[:, None, None],
        truth_translation=poses[..., :3, 3] / unit[:, None, None],
        weight=weight,
        scale=scale,
        size=(unit / own_unit).detach(),
    )


def _fit_scale(points: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted-median scale [B] over an even grid of about 4096 points per sample."""
    _, views, height, width = weight.shape
    step = max(1.0, (views * height * width / _ALIGN_POINTS) ** 0.5)
    rows = torch.arange(0, height, step, device=weight.device).long()
    columns = torch.arange(0, width, step, device=weight.device).long()

    def picked(values: Tensor) -> Tensor:
        return values[:, :, rows][:, :, :, columns].flatten(1)

    each = weight[..., None].expand_as(target)
    return weighted_median_scale(picked(points), picked(target), picked(each)).abs()


def _mean_distance(points: Tensor, valid: Tensor) -> Tensor:
    """Mean distance [B] of valid points [B,N,H,W,3]; 1 where a sample has none."""
    distance = torch.where(valid[..., None], points, 1.0).norm(dim=-1) * valid
    count = valid.flatten(1).sum(1)
    mean = distance.flatten(1).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, mean.clamp(min=_TINY), 1.0)


def _depth_weight(depth: Tensor, valid: Tensor) -> Tensor:
    """1 / depth with a floor at a tenth of each view's mean; 0 where invalid."""
    mean = (depth * valid).flatten(2).sum(2) / valid.flatten(2).sum(2).clamp(min=1)
    floor = _NEAR_FLOOR * mean[..., None, None]
    return valid / (torch.maximum(depth, floor) + _TINY)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` where ``mask``; 0 if it is empty. Masked-out values may be anything."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def _normal_loss(aligned: _Aligned, truth: GeometryTruth) -> Tensor:
    """Angles between the normals of every pixel quad's four corner triangles."""
    height, width = truth.valid.shape[-2:]
    usable = truth.valid & ~_jumps(truth.depth.float(), truth.valid)
    total = aligned.points.new_zeros(())
    got, want, ok = _corners(aligned.points), _corners(aligned.truth), _corners(usable)
    for corner in range(4):
        before, after = (corner + 1) % 4, (corner + 3) % 4
        normal, sound = _triangle_normal(got[corner], got[before], got[after])
        true_normal, true_sound = _triangle_normal(want[corner], want[before], want[after])
        mask = ok[corner] & ok[before] & ok[after] & sound & true_sound
        angle = _angle(normal, true_normal).clamp(_MIN_ANGLE, _MAX_ANGLE)
        curved = torch.where(
            angle < _SMOOTH_ANGLE,
            angle.square() / (2 * _SMOOTH_ANGLE),
            angle - _SMOOTH_ANGLE / 2,
        )
        total = total + torch.where(mask, curved, 0.0).mean()
    return total / (4 * max(height, width))


def _corners(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four pixels of every 2x2 quad of [B,N,H,W,...], in turning order."""
    return (
        x[:, :, :-1, :-1],
        x[:, :, :-1, 1:],
        x[:, :, 1:, 1:],
        x[:, :, 1:, :-1],
    )


def _triangle_normal(corner: Tensor, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Unit normals of triangles, and which triangles are large enough to have one."""
    normal = torch.linalg.cross(before - corner, after - corner, dim=-1)
    sound = normal.detach().norm(dim=-1) > _FLAT
    return functional.normalize(torch.where(sound[..., None], normal, 1.0), dim=-1), sound


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle between unit vectors, with a finite gradient where they are parallel."""
    sine = torch.linalg.cross(a, b, dim=-1).square().sum(-1).clamp(min=1e-12).sqrt()
    return torch.atan2(sine, (a * b).sum(-1))


def _jumps(depth: Tensor, valid: Tensor) -> Tensor:
    """Pixels whose valid 3x3 neighbourhood spans more than 3 % of their depth."""
    flat, mask = depth.flatten(0, 1)[:, None], valid.flatten(0, 1)[:, None]
    highest = functional.max_pool2d(torch.where(mask, flat, -torch.inf), 3, 1, 1)
    lowest = -functional.max_pool2d(torch.where(mask, -flat, -torch.inf), 3, 1, 1)
    return ((highest - lowest) > _EDGE * flat)[:, 0].unflatten(0, depth.shape[:2])


def _metric_loss(raw: Pi3XRaw, aligned: _Aligned) -> Tensor:
    """Squared difference of log(1 + metric factor), on samples with a usable scale."""
    wanted = torch.log1p(aligned.scale * aligned.size)
    return (torch.log1p(raw.metric) - wanted).square().mean()


def _confidence_loss(logit: Tensor, error: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy to exp(-50 error) where there is truth, and to 0 in the sky."""
    target = torch.exp(-_SHARPNESS * error)
    entropy = functional.binary_cross_entropy_with_logits
    surface = entropy(logit, torch.where(valid, target, 0.0), reduction="none")
    return _mean(surface, valid) + _mean(functional.softplus(logit), ~valid)


def _pose_losses(raw: Pi3XRaw, truth: GeometryTruth, aligned: _Aligned) -> tuple[Tensor, Tensor]:
    """Huber loss of relative translations and mean angle of relative rotations, all pairs."""
    views = raw.poses.shape[1]
    if views < 2:
        return raw.poses.new_zeros(()), raw.poses.new_zeros(())
    own = _pairs(with_translation(raw.poses, aligned.translation))
    relative = rigid_inverse(truth.world_from_camera[:, :1].float()) @ (
        truth.world_from_camera.float()
    )
    true = _pairs(with_translation(relative, aligned.truth_translation))
    trans = functional.huber_loss(own[..., :3, 3], true[..., :3, 3], delta=_HUBER)
    product = (own[..., :3, :3] * true[..., :3, :3]).sum((-2, -1))  # trace of the difference
    cosine = ((product - 1) / 2).clamp(-1 + _TINY, 1 - _TINY)
    return trans, torch.arccos(cosine).mean()


def _pairs(poses: Tensor) -> Tensor:
    """Relative poses P_i^-1 P_j of all ordered pairs i != j: [B, N(N-1), 4, 4]."""
    views = poses.shape[1]
    relative = rigid_inverse(poses)[:, :, None] @ poses[:, None]
    pairs = [i * views + j for i in range(views) for j in range(views) if i != j]
    return relative.flatten(1, 2)[:, pairs]
