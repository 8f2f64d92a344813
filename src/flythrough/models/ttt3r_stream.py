"""Running the streaming network over many frames: state, resets, and one frame of reference.

After every ``reset_every`` frames the state starts anew with the last frame once more; the new
chunk is hung onto the old one by that frame's pose (TTT3R, inference on long videos).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.errors import GeometryError
from flythrough.models.ttt3r import TTT3R, FrameGeometry, UpdateRule

RESET_EVERY = 100
"""Frames after which the published long-video setting starts anew."""


@dataclass(frozen=True, eq=False)
class StreamedGeometry:
    """T frames of one video: ``points`` [T,H,W,3] in each camera's frame, ``confidence`` [T,H,W] of
    at least 1, ``world_from_camera`` [T,4,4], the first camera being the origin. Float32."""

    points: Tensor
    confidence: Tensor
    world_from_camera: Tensor


def stream(
    net: TTT3R,
    images: Tensor,
    *,
    rule: UpdateRule = "ttt3r",
    reset_every: int | None = RESET_EVERY,
) -> StreamedGeometry:
    """Geometry of a video ``images`` [T,3,H,W] in [0,1], sides multiples of 16, on the network's
    device; results lie where the images do, frame by frame.

    Raises:
        GeometryError: wrong images, or a reset interval below 2.
    """
    if reset_every is not None and reset_every < 2:
        raise GeometryError(
            f"A reset after every {reset_every} frame(s) leaves nothing to hang chunks together "
            "with; give 2 or more, or None for no reset."
        )
    device = net.pose_token.device
    size = (images.shape[-2], images.shape[-1])
    points, confidence = [], []
    poses: list[list[Tensor]] = [[]]
    state = net.start()
    for number in range(len(images)):
        features = net.encode(images[number : number + 1].to(device))
        found, state = net.step(features, state, size, rule=rule, everything=False)
        points.append(found.points[0].to(images.device))
        confidence.append(found.confidence[0].to(images.device))
        poses[-1].append(found.pose[0].to(images.device))
        last = number == len(images) - 1
        if reset_every is not None and (number + 1) % reset_every == 0 and not last:
            again, state = net.step(features, net.start(), size, rule=rule, everything=False)
            poses.append([again.pose[0].to(images.device)])
    return StreamedGeometry(
        torch.stack(points),
        torch.stack(confidence),
        chained([torch.stack(chunk) for chunk in poses]),
    )


def chained(chunks: Sequence[Tensor]) -> Tensor:
    """Poses of chunks [n_i,4,4], each in a frame of its own, as one trajectory [T,4,4].

    Every chunk but the first begins with the frame that the one before ended with; that double is
    left out. The first pose of each chunk is only nearly the identity, so all are taken relative to
    it.
    """
    done: list[Tensor] = []
    base = torch.eye(4, dtype=chunks[0].dtype, device=chunks[0].device)
    for number, poses in enumerate(chunks):
        placed = base @ torch.linalg.inv(poses[0]) @ poses
        done.append(placed if number == 0 else placed[1:])
        base = placed[-1]
    joined = torch.cat(done)
    joined[0] = torch.eye(4, dtype=joined.dtype, device=joined.device)
    return joined


__all__ = ["RESET_EVERY", "FrameGeometry", "StreamedGeometry", "chained", "stream"]
