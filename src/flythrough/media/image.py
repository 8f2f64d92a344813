"""Photos in: one upright sRGB picture, its focal length if the file states one, and its fitting.

Colours are taken as sRGB; an embedded colour profile is not applied.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from flythrough.disk import replacing
from flythrough.errors import MediaError
from flythrough.media.checks import check_input_file, check_picture, reason
from flythrough.media.fitting import (
    DEFAULT_HORIZONTAL_FOV,
    centre_crop,
    default_intrinsics,
    intrinsics_from_35mm,
)

__all__ = ["FittedPhoto", "Photo", "default_intrinsics", "fit", "read_photo"]

MIN_SIDE = 32
"""Pixels; a smaller picture holds too little to start a video from."""

MAX_PIXELS = 178_000_000
"""Twice the pixel count at which Pillow starts to suspect a decompression bomb."""

# Vector and page formats are left out: Pillow hands some of them to other programs. Multi-picture
# JPEG (MPO) is read through JPEG.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "PPM", "AVIF", "TGA")
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
_EXIF_FOLDER, _EXIF_FOCAL_35MM = 0x8769, 0xA405


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture as it should be seen.

    ``pixels`` uint8 [H,W,3] sRGB, upright, read-only; ``focal_35mm`` the 35 mm equivalent focal
    length in mm or None if the file does not state it; ``digest`` of the bytes of the file.
    """

    pixels: np.ndarray
    focal_35mm: float | None
    path: Path
    digest: str

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True, eq=False)
class FittedPhoto:
    """A photo at the output size.

    ``pixels`` uint8 [h,w,3], read-only; ``intrinsics`` [3,3] float64 in pixels of that size (pixel
    centres at half-integers); ``source_size`` (height, width) before the crop; ``focal_known`` is
    False when the field of view was assumed; ``scale`` is above 1 if the photo was enlarged;
    ``source_digest`` identifies the file.
    """

    pixels: np.ndarray
    intrinsics: np.ndarray
    source_size: tuple[int, int]
    focal_known: bool
    scale: float
    source_digest: str


def read_photo(path: str | Path) -> Photo:
    """Read a photo, turned upright by its EXIF orientation.

    Transparent parts are laid over white; greyscale, palette, CMYK and 16-bit pictures become 8-bit
    RGB.

    Raises:
        MediaError: missing, a folder, empty, damaged, of an unsupported format, animated, smaller
            than 32 pixels on a side or larger than 178 megapixels.
    """
    path = Path(path)
    check_input_file(path, "photo")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MediaError(
            f"The photo {path} cannot be opened ({reason(error)}); check its permissions."
        ) from error
    with warnings.catch_warnings():
        # Size is checked below; damaged metadata does not make a picture unusable.
        warnings.simplefilter("ignore")
        pixels, focal = _decode(data, path)
    pixels.setflags(write=False)
    return Photo(pixels, focal, path, blake2b(data, digest_size=16).hexdigest())


def fit(photo: Photo, height: int, width: int, horizontal_fov: float | None = None) -> FittedPhoto:
    """Cut the centre of ``photo`` to the aspect of the output and scale it (Lanczos).

    The focal length comes from ``horizontal_fov`` (degrees, of the fitted picture) if given, else
    from EXIF (of the whole photo, then cropped and scaled with it), else 60 degrees horizontally
    are assumed for the fitted picture.

    Raises:
        MediaError: the output size or the field of view is out of range.
    """
    for side, value in (("height", height), ("width", width)):
        if value < 1:
            raise MediaError(f"The {side} {value} must be at least 1; give a positive size.")
    crop = centre_crop(photo.size, (height, width))
    known = horizontal_fov is not None or photo.focal_35mm is not None
    if horizontal_fov is not None:
        intrinsics = default_intrinsics(height, width, horizontal_fov)
    elif photo.focal_35mm is not None:
        intrinsics = crop.intrinsics(intrinsics_from_35mm(*photo.size, photo.focal_35mm))
    else:
        intrinsics = default_intrinsics(height, width, DEFAULT_HORIZONTAL_FOV)
    picture = Image.fromarray(photo.pixels)
    resized = picture.resize((width, height), Image.Resampling.LANCZOS, box=crop.edges)
    pixels = np.array(resized)
    for array in (pixels, intrinsics):
        array.setflags(write=False)
    return FittedPhoto(pixels, intrinsics, photo.size, known, crop.scale, photo.digest)


def write_picture(path: str | Path, pixels: np.ndarray) -> None:
    """Write uint8 [H,W,3] to a picture file whose format its suffix names (.png, .jpg, .webp).

    Raises:
        MediaError: an unsuitable array, suffix or folder.
    """
    path = Path(path)
    check_picture(pixels, "The picture")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise MediaError(f"The picture {path} must end in .png, .jpg or .webp; rename it.")
    if not path.parent.is_dir():
        raise MediaError(f"The folder {path.parent} does not exist; create it first.")
    with replacing(path) as partial:
        Image.fromarray(pixels).save(partial, quality=95)


def upright_pixels(picture: Image.Image, path: Path) -> tuple[np.ndarray, float | None]:
    """Pixels uint8 [H,W,3] as they should be seen, and the 35 mm focal length if it is stated.

    Raises:
        MediaError: too small, too large, animated, or of an unsuitable range; naming ``path``.
    """
    _check_size(picture, path)
    focal = _focal_35mm(picture)
    picture.load()
    upright = _upright(picture)
    return _as_rgb(upright, path), focal


def _decode(data: bytes, path: Path) -> tuple[np.ndarray, float | None]:
    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]  # older Pillow knows no AVIF
    try:
        with Image.open(io.BytesIO(data), formats=formats) as picture:
            return upright_pixels(picture, path)
    except MediaError:
        raise
    except UnidentifiedImageError as error:
        raise MediaError(
            f"The photo {path} is not a picture that can be read; save it as JPEG or PNG."
        ) from error
    except Image.DecompressionBombError as error:
        raise MediaError(_too_large(path)) from error
    except Exception as error:  # decoders raise many kinds for damaged files
        raise MediaError(
            f"The photo {path} is damaged or of an unsupported kind ({reason(error)}); save it "
            "again as JPEG or PNG."
        ) from error


def _check_size(picture: Image.Image, path: Path) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise MediaError(_too_large(path))
    if min(width, height) < MIN_SIDE:
        raise MediaError(
            f"The photo {path} is {width}x{height} pixels but both sides must have at least "
            f"{MIN_SIDE}; use a larger picture."
        )
    frames = getattr(picture, "n_frames", 1)
    if picture.format in _ANIMATED and frames > 1:
        raise MediaError(
            f"The photo {path} is an animation of {frames} pictures; save the one to start from."
        )


def _too_large(path: Path) -> str:
    return (
        f"The photo {path} has more than {MAX_PIXELS // 10**6} megapixels when unpacked; scale it "
        "down first."
    )


def _focal_35mm(picture: Image.Image) -> float | None:
    """The EXIF field FocalLengthIn35mmFilm; 0 means unknown there."""
    try:
        value = float(picture.getexif().get_ifd(_EXIF_FOLDER).get(_EXIF_FOCAL_35MM, 0))
    except Exception:  # EXIF blocks are often damaged; a photo without focal length is still good
        return None
    return value if 1.0 <= value <= 10_000.0 else None


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # damaged EXIF: keep the picture as stored
        return picture.copy()


def _as_rgb(picture: Image.Image, path: Path) -> np.ndarray:
    if picture.mode == "F":
        raise MediaError(
            f"The photo {path} holds floating point values without a stated range; save it with 8 "
            "or 16 bits."
        )
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        return _from_16_bit(np.asarray(picture).astype(np.int64), path)
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(paper, layer)
    return np.array(picture.convert("RGB"))


def _from_16_bit(values: np.ndarray, path: Path) -> np.ndarray:
    if values.min() < 0 or values.max() > 65535:
        raise MediaError(
            f"The photo {path} has values from {values.min()} to {values.max()} but greyscale must "
            "lie in 0 to 65535; save it with 8 or 16 bits."
        )
    grey = ((values + 128) // 257).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
