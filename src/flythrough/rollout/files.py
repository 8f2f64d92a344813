"""One start or chunk as the bytes of a safetensors file, and back.

Arrays are tensors; the request, the timings and the kind of file are JSON in the metadata.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from flythrough.errors import RolloutError
from flythrough.rollout.canonical import canonical_json
from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Start
from flythrough.rollout.window import STANDARD, Window

_KIND = "flythrough"
_START, _CHUNK = "start", "chunk"


def start_bytes(start: Start) -> bytes:
    """The file of a start: tensors image, intrinsics and, if there is one, video."""
    tensors = {"image": start.image, "intrinsics": start.intrinsics}
    if start.video is not None:
        tensors["video"] = start.video
    return save(tensors, {_KIND: _START})


def start_from(data: bytes, name: str) -> Start:
    """The start in ``data``; ``name`` is the file named in errors.

    Raises:
        RolloutError: not such a file.
    """
    tensors, _ = _read(data, _START, name)
    try:
        return Start(tensors["image"], tensors["intrinsics"], tensors.get("video"))
    except (KeyError, RolloutError) as error:
        raise _not_a(_START, name) from error


def chunk_bytes(chunk: Chunk) -> bytes:
    """The file of a chunk: tensors latents, frames and, if cameras lead, world_from_camera and
    intrinsics."""
    request = chunk.request
    tensors = {"latents": chunk.latents, "frames": chunk.frames}
    if request.world_from_camera is not None and request.intrinsics is not None:
        tensors["world_from_camera"] = request.world_from_camera
        tensors["intrinsics"] = request.intrinsics
    words: dict[str, Any] = {
        "index": request.index,
        "prompt": request.prompt,
        "warp_digest": request.warp_digest,
    }
    if request.window != STANDARD:
        words["window"] = [request.window.frames, request.window.overlap]
    if request.wish is not None:
        words["wish"] = request.wish
    metadata = {
        _KIND: _CHUNK,
        "request": canonical_json(words),
        "timings": canonical_json(dict(chunk.timings)),
    }
    return save(tensors, metadata)


def chunk_from(data: bytes, name: str) -> Chunk:
    """The chunk in ``data``; ``name`` is the file named in errors.

    Raises:
        RolloutError: not such a file.
    """
    tensors, metadata = _read(data, _CHUNK, name)
    try:
        words = json.loads(metadata["request"])
        request = ChunkRequest(
            window=Window(*words.pop("window", ())),
            **words,
            world_from_camera=tensors.get("world_from_camera"),
            intrinsics=tensors.get("intrinsics"),
        )
        return Chunk(
            request=request,
            latents=tensors["latents"],
            frames=tensors["frames"],
            timings=json.loads(metadata["timings"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _not_a(_CHUNK, name) from error


def _read(data: bytes, kind: str, name: str) -> tuple[dict[str, np.ndarray], Mapping[str, Any]]:
    try:
        tensors = load(data)
        metadata = _metadata(data)
    except (SafetensorError, KeyError, ValueError, struct.error) as error:
        raise _not_a(kind, name) from error
    if metadata.get(_KIND) != kind:
        raise _not_a(kind, name)
    return tensors, metadata


def _metadata(data: bytes) -> Mapping[str, Any]:
    """The metadata of safetensors bytes: a little-endian length, then a JSON header."""
    (length,) = struct.unpack_from("<Q", data)
    found = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return found if isinstance(found, dict) else {}


def _not_a(kind: str, name: str) -> RolloutError:
    return RolloutError(
        f"{name} is not a {kind} file of a rollout; restore it from a copy or start a new rollout."
    )
