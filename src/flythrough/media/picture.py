"""Small pictures for people: contact sheets, strips of frames, depth in colour."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flythrough.errors import MediaError
from flythrough.media.checks import check_picture

_GAP = 4
_PAPER = 24
_INK = (235, 235, 235)

# Colours at equal steps from far (0) to near (1), with steadily rising lightness, so that the order
# survives printing in grey and colour-blind eyes.
_DEPTH_COLOURS = np.array(
    [
        (14, 12, 46),
        (38, 28, 96),
        (58, 58, 138),
        (52, 98, 150),
        (46, 136, 142),
        (72, 170, 116),
        (146, 194, 82),
        (226, 204, 84),
        (255, 238, 176),
    ],
    dtype=np.float64,
)
_INVALID = (90, 90, 90)


def contact_sheet(
    images: Sequence[np.ndarray],
    columns: int | None = None,
    labels: Sequence[str] | None = None,
) -> np.ndarray:
    """Pictures in rows on dark paper, each with its label underneath.

    Args:
        images: uint8 [H,W,3] each; sizes may differ (cells have the largest height and width, a
            smaller picture is centred).
        columns: pictures a row; None makes the sheet about square.
        labels: one a picture, cut to the width of the cell.

    Returns:
        uint8 [H,W,3].

    Raises:
        MediaError: no picture, a wrong array, ``columns`` below 1, or a label too many or too few.
    """
    _check_pictures(images, "contact sheet")
    if labels is not None and len(labels) != len(images):
        raise MediaError(
            f"A contact sheet of {len(images)} pictures got {len(labels)} labels; give one each."
        )
    if columns is not None and columns < 1:
        raise MediaError(f"A contact sheet cannot have {columns} columns; give at least 1.")
    height = max(image.shape[0] for image in images)
    width = max(image.shape[1] for image in images)
    across = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    down = -(-len(images) // across)
    font = ImageFont.load_default(max(10.0, min(18.0, height / 12)))
    line = 0 if labels is None else math.ceil(sum(_metrics(font))) + 2
    step_y, step_x = height + line + _GAP, width + _GAP
    sheet = np.full((down * step_y + _GAP, across * step_x + _GAP, 3), _PAPER, dtype=np.uint8)
    for number, image in enumerate(images):
        top = _GAP + (number // across) * step_y + (height - image.shape[0]) // 2
        left = _GAP + (number % across) * step_x + (width - image.shape[1]) // 2
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    if labels is None:
        return sheet
    canvas = Image.fromarray(sheet)
    draw = ImageDraw.Draw(canvas)
    for number, label in enumerate(labels):
        corner = (
            _GAP + (number % across) * step_x,
            _GAP + (number // across) * step_y + height + 1,
        )
        draw.text(corner, _shortened(label, width, draw, font), fill=_INK, font=font)
    return np.array(canvas)


def strip(frames: Sequence[np.ndarray] | np.ndarray, count: int = 8, gap: int = 2) -> np.ndarray:
    """At most ``count`` frames of a clip, evenly spread from the first to the last, in one row.

    Args:
        frames: uint8 [T,H,W,3], or T arrays [H,W,3] of one size.

    Returns:
        uint8 [H, count * W + (count - 1) * gap, 3].

    Raises:
        MediaError: no frame, a wrong array, or ``count`` below 1.
    """
    if count < 1:
        raise MediaError(f"A strip cannot have {count} frames; give at least 1.")
    if len(frames) == 0:
        raise MediaError("A strip got no frames; give at least one.")
    chosen = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    return side_by_side(*(np.asarray(frames[index]) for index in chosen), gap=gap)


def side_by_side(*pictures: np.ndarray, gap: int = _GAP) -> np.ndarray:
    """Pictures of one height in one row, ``gap`` pixels of dark paper between them.

    Args:
        pictures: uint8 [H,W,3] each; widths may differ.

    Returns:
        uint8 [H,W',3].

    Raises:
        MediaError: no picture, a wrong array, different heights, or a negative gap.
    """
    _check_pictures(pictures, "row of pictures")
    heights = sorted({picture.shape[0] for picture in pictures})
    if len(heights) > 1:
        raise MediaError(
            f"Pictures of {heights[0]} and {heights[-1]} rows cannot stand side by side; give them "
            "one height."
        )
    if gap < 0:
        raise MediaError(f"The gap {gap} between pictures must not be negative; give 0 or more.")
    paper = np.full((heights[0], gap, 3), _PAPER, dtype=np.uint8)
    parts = [pictures[0]]
    for picture in pictures[1:]:
        parts += [paper, picture]
    return np.concatenate(parts, axis=1)


def depth_picture(
    depth: np.ndarray, near: float | None = None, far: float | None = None
) -> np.ndarray:
    """A depth map in colour: light and warm is near, dark and blue is far, grey is invalid.

    Equal steps of colour are equal ratios of depth, so near and far parts show alike.

    Args:
        depth: [H,W] z-depth in any unit; 0, negative and non-finite values are invalid.
        near, far: depths shown lightest and darkest; None takes the 2nd and 98th percentile.

    Returns:
        uint8 [H,W,3].

    Raises:
        MediaError: not [H,W], or not 0 < near < far.
    """
    depth = np.asarray(depth, dtype=np.float64)
    if depth.ndim != 2 or depth.size == 0:
        raise MediaError(f"The depth map is {list(depth.shape)} but must be [height, width].")
    valid = np.isfinite(depth) & (depth > 0)
    picture = np.empty((*depth.shape, 3), dtype=np.uint8)
    picture[...] = _INVALID
    if not valid.any():
        return picture
    nearest, farthest = depth_range(depth)
    low = nearest if near is None else near
    high = farthest if far is None else far
    if (near is not None or far is not None) and not 0 < low < high:
        raise MediaError(
            f"The depth range {low:g} to {high:g} must be positive and rising; swap or widen it."
        )
    span = max(math.log(high / low), 1e-12)
    share = np.clip(np.log(high / depth[valid]) / span, 0.0, 1.0)
    picture[valid] = depth_colours(share)
    return picture


def depth_range(depth: np.ndarray) -> tuple[float, float]:
    """The 2nd and 98th percentile of a depth map's valid values, of which there must be one."""
    nearest, farthest = np.percentile(depth[np.isfinite(depth) & (depth > 0)], (2, 98))
    return float(nearest), float(farthest)


def depth_colours(share: np.ndarray) -> np.ndarray:
    """Colours [N,3] uint8 for shares [N] of the way from far (0) to near (1), linear between the
    table's entries."""
    steps = np.linspace(0, 1, len(_DEPTH_COLOURS))
    channels = [np.interp(share, steps, _DEPTH_COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _check_pictures(images: Sequence[np.ndarray], what: str) -> None:
    if len(images) == 0:
        raise MediaError(f"A {what} got no pictures; give at least one.")
    for number, image in enumerate(images):
        check_picture(image, f"Picture {number}")


def _metrics(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> tuple[float, float]:
    if isinstance(font, ImageFont.FreeTypeFont):
        return font.getmetrics()
    return 11, 3


def _shortened(
    label: str,
    width: int,
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> str:
    """``label`` on one line, cut with an ellipsis until it fits ``width`` pixels."""
    text = " ".join(label.split())
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text + "..." if text else ""
