"""The seam score: how much more the picture changes at a chunk's border than within chunks.

For each pair of neighbouring frames the mean absolute difference is taken, after the earlier frame
was moved onto the later one where the motion is known. A border's score is its difference over the
median difference within the two chunks that meet there: 1 means that nobody can tell the border.
A correction may move a jump to a later frame instead of removing it, so the largest score among the
first frames after the border is reported beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.errors import InputError
from flythrough.rollout.chunk import CHUNK_FRAMES

AFTER = 8
"""Differences behind a border that ``Border.after`` looks at: those of two latents."""

_FLOOR = 0.1 / 255  # a tenth of an 8-bit level, so that a frozen video scores 1
_LEAST_VISIBLE = 0.05  # share of pixels that a difference must rest on
_AGREEMENT = 0.03  # of the depth, between a point and the surface that is seen in its place


@dataclass(frozen=True, eq=False)
class Motion:
    """Where each pixel of frame t + 1 was in frame t.

    ``pixels`` [T-1,2,H,W]: (x, y) in pixels of frame t, centres at half-integers; ``visible``
    [T-1,H,W] bool: the point was seen there. All else is left out of the score.
    """

    pixels: Tensor
    visible: Tensor


@dataclass(frozen=True)
class Border:
    """One border: ``frame`` is the first of the new chunk, ``score`` the change towards it and
    ``after`` the largest change among the following eight, both over the median within the two
    chunks."""

    frame: int
    score: float
    after: float


@dataclass(frozen=True)
class SeamScore:
    """``score`` and ``after`` are means over ``borders``; ``inside`` is the median difference
    within chunks, in [0, 1] of full range."""

    score: float
    after: float
    inside: float
    borders: tuple[Border, ...]


def seam_score(
    video: Tensor,
    motion: Motion | None = None,
    chunk: int = CHUNK_FRAMES,
    first_frames: Sequence[int] | None = None,
) -> SeamScore:
    """Score ``video`` [T,3,H,W] in [0,1] whose chunks are ``chunk`` frames long, or whose later
    chunks begin with the frames ``first_frames``.

    Without ``motion``, frames are compared in place, and motion counts as change on both sides of
    the quotient.

    Raises:
        InputError: no border, another shape, or too few visible pixels at a frame.
    """
    if video.ndim != 4 or video.shape[0] <= chunk:
        raise InputError(
            f"a video of shape {tuple(video.shape)} has no border of chunks of {chunk} frames; "
            f"give [T, 3, H, W] with T above {chunk}."
        )
    changes = differences(video, motion)
    frame = torch.arange(1, len(video))
    starts = list(range(chunk, len(video), chunk)) if first_frames is None else [*first_frames]
    within = ~torch.isin(frame, torch.tensor(starts))
    borders = []
    for before, first, behind_it in zip(
        [0, *starts], starts, [*starts[1:], len(video) + 1], strict=False
    ):
        near = within & (frame > before) & (frame < behind_it)
        median = float(changes[near].median())
        scores = (changes + _FLOOR) / (median + _FLOOR)
        behind = scores[first : min(first + AFTER, behind_it - 1)]
        after = float(behind.max()) if len(behind) else 1.0
        borders.append(Border(first, float(scores[first - 1]), after))
    return SeamScore(
        score=sum(b.score for b in borders) / len(borders),
        after=sum(b.after for b in borders) / len(borders),
        inside=float(changes[within].median()),
        borders=tuple(borders),
    )


def differences(video: Tensor, motion: Motion | None = None) -> Tensor:
    """Mean absolute difference [T-1] float64 between neighbours of ``video`` [T,3,H,W].

    Raises:
        InputError: ``motion`` has another shape, or fewer than 5 % of a frame's pixels are visible.
    """
    earlier, later = video[:-1].float(), video[1:].float()
    if motion is None:
        return (later - earlier).abs().double().mean((1, 2, 3))
    _check_motion(video, motion)
    changes = (later - moved(earlier, motion.pixels)).abs().double().mean(1)
    visible = motion.visible.to(changes)
    share = visible.mean((1, 2))
    if bool((share < _LEAST_VISIBLE).any()):
        worst = int(share.argmin())
        raise InputError(
            f"only {100 * float(share[worst]):.1f} % of frame {worst + 1} was seen in the frame "
            f"before, but {100 * _LEAST_VISIBLE:.0f} % are needed; use a slower path."
        )
    return (changes * visible).mean((1, 2)) / share


def moved(frames: Tensor, pixels: Tensor) -> Tensor:
    """``frames`` [N,C,H,W] looked up bilinearly at ``pixels`` [N,2,H,W] (x, y; half-integer
    centres); beyond the border the nearest pixel counts."""
    height, width = frames.shape[-2:]
    sides = torch.tensor([width, height], dtype=frames.dtype, device=frames.device)
    grid = pixels.to(frames).movedim(1, -1) / sides * 2 - 1
    return functional.grid_sample(
        frames, grid, mode="bilinear", padding_mode="border", align_corners=False
    )


def motion_from_depth(
    depth: Tensor, world_from_camera: Tensor, intrinsics: Tensor, valid: Tensor | None = None
) -> Motion:
    """The motion of a scene that stands still, seen by known cameras.

    Args:
        depth: [T,H,W] z-depth in the unit of the poses.
        world_from_camera: [T,4,4], OpenCV axes.
        intrinsics: [T,3,3] in pixels, centres at half-integers.
        valid: [T,H,W] bool; None takes every finite positive depth.

    A point counts as visible where it falls inside frame t and the depth there agrees with its own
    to 3 %.
    """
    depth, poses = depth.double(), world_from_camera.to(depth.device).double()
    matrices = intrinsics.to(depth.device).double()
    good = torch.isfinite(depth) & (depth > 0)
    if valid is not None:
        good = good & valid
    depth = torch.where(good, depth, 1.0)
    height, width = depth.shape[1:]
    rows = torch.arange(height, device=depth.device).double() + 0.5
    columns = torch.arange(width, device=depth.device).double() + 0.5
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    centres = torch.stack((u, v, torch.ones_like(u))).flatten(1)
    rays = torch.linalg.inv(matrices[1:]) @ centres
    points = rays * depth[1:].flatten(1)[:, None]
    step = torch.linalg.inv(poses[:-1]) @ poses[1:]
    landed = step[:, :3, :3] @ points + step[:, :3, 3:]
    z = landed[:, 2]
    projected = matrices[:-1] @ (landed / z.abs().clamp(min=1e-9)[:, None])
    pixels = projected[:, :2].unflatten(2, (height, width))
    z = z.unflatten(1, (height, width))
    x, y = pixels[:, 0], pixels[:, 1]
    inside = (z > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    seen = moved(depth[:-1, None], pixels)[:, 0]
    known = moved(good[:-1, None].double(), pixels)[:, 0] > 0.99
    agree = (seen - z).abs() <= _AGREEMENT * z.abs()
    return Motion(pixels.float(), good[1:] & inside & known & agree)


def _check_motion(video: Tensor, motion: Motion) -> None:
    count, _, height, width = video.shape
    wanted = (count - 1, 2, height, width), (count - 1, height, width)
    given = tuple(motion.pixels.shape), tuple(motion.visible.shape)
    if given != wanted:
        raise InputError(
            f"the motion has the shapes {given}, but a video of shape {tuple(video.shape)} needs "
            f"{wanted}; give one field for each pair of neighbouring frames."
        )
