"""Photos and clips that are not files: PIL pictures and arrays."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image

from flythrough.errors import MediaError
from flythrough.media.checks import IN_MEMORY, check_picture, reason
from flythrough.media.image import Photo, read_photo, upright_pixels
from flythrough.media.video import Clip

Picture = Image.Image | np.ndarray
"""A PIL picture, or an array [H,W,3] of uint8 or of floats in [0,1]; sRGB."""


def photo_of(picture: Picture) -> Photo:
    """``picture`` as if it had been read from a file; PIL's EXIF data counts as there.

    Raises:
        MediaError: another shape or type, floats out of range, below 32 or too many pixels.
    """
    name = Path(IN_MEMORY)
    given = Image.fromarray(_bytes(picture)) if isinstance(picture, np.ndarray) else picture
    if not isinstance(given, Image.Image):
        raise MediaError(
            f"A picture was given as {type(picture).__name__} but must be a path, a PIL picture or "
            "a NumPy array; convert it first."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata does not make a picture unusable
            pixels, focal = upright_pixels(given, name)
    except MediaError:
        raise
    except Exception as error:  # decoders raise many kinds for damaged files
        raise MediaError(
            f"The photo {name} cannot be decoded ({reason(error)}); load it again."
        ) from error
    pixels.setflags(write=False)
    digest = blake2b(f"{pixels.shape};".encode() + pixels.tobytes(), digest_size=16).hexdigest()
    return Photo(pixels, focal, name, digest)


def clip_of(frames: Sequence[Picture | str | Path] | np.ndarray, fps: float) -> Clip:
    """Frames in memory, or an array [T,H,W,3], as a clip.

    Raises:
        MediaError: no frames, a frame that is no picture, or sizes that differ.
    """
    pictures = [
        read_photo(frame).pixels if isinstance(frame, str | Path) else photo_of(frame).pixels
        for frame in frames
    ]
    sizes = sorted({picture.shape[:2] for picture in pictures})
    if len(sizes) != 1:
        found = ", ".join(f"{height}x{width}" for height, width in sizes) or "none"
        raise MediaError(
            f"The frames of a video must be there and of one size, but their sizes are: {found}; "
            "bring them to one size."
        )
    stacked = np.stack(pictures)
    stacked.setflags(write=False)
    return Clip(stacked, fps)


def _bytes(array: np.ndarray) -> np.ndarray:
    if np.issubdtype(array.dtype, np.floating):
        if array.size and not (array.min() >= 0 and array.max() <= 1):
            raise MediaError(
                f"The picture {IN_MEMORY} has floating point values from {array.min():g} to "
                f"{array.max():g} but they must lie in 0 to 1; rescale them."
            )
        array = np.rint(array * 255.0).astype(np.uint8)
    check_picture(array, f"The picture {IN_MEMORY}")
    return np.ascontiguousarray(array)
