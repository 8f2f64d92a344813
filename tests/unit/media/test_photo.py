"""Photos: orientation, focal length, fitting, colour kinds, and refusals."""

from __future__ import annotations

import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flythrough.errors import MediaError
from flythrough.media.fitting import centre_crop, default_intrinsics, intrinsics_from_35mm
from flythrough.media.image import Photo, fit, read_photo, write_picture

# A camera writes the orientation that undoes how it stored the picture.
_STORED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def scene(height: int = 48, width: int = 80) -> np.ndarray:
    """Four different quarters, so that every flip and turn shows."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (250, 10, 10)
    picture[: height // 2, width // 2 :] = (10, 250, 10)
    picture[height // 2 :, : width // 2] = (10, 10, 250)
    picture[height // 2 :, width // 2 :] = (200, 200, 30)
    return picture


def photo_of(pixels: np.ndarray, focal: float | None = None) -> Photo:
    return Photo(pixels, focal, Path("given.png"), "0")


def saved(folder: Path, image: Image.Image, name: str = "photo.png", **options: object) -> Path:
    path = folder / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.tiff"])
def test_every_exif_orientation_is_turned_upright(
    tmp_path: Path, orientation: int, name: str
) -> None:
    stored = Image.fromarray(np.ascontiguousarray(_STORED[orientation](scene())))
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = read_photo(saved(tmp_path, stored, name, exif=exif))
    assert photo.size == (48, 80)
    middles = np.ix_([12, 36], [20, 60])
    assert np.abs(photo.pixels[middles].astype(int) - scene()[middles]).max() <= 4


@pytest.mark.parametrize(("stated", "read"), [(28, 28.0), (0, None), (None, None)])
def test_focal_length_comes_from_exif(
    tmp_path: Path, stated: int | None, read: float | None
) -> None:
    exif = Image.Exif()
    if stated is not None:
        exif.get_ifd(0x8769)[0xA405] = stated
    path = saved(tmp_path, Image.fromarray(scene()), "photo.jpg", exif=exif)
    assert read_photo(path).focal_35mm == read


def test_a_damaged_exif_block_is_no_reason_to_refuse(tmp_path: Path) -> None:
    damaged = b"Exif\x00\x00II*\x00\xff\xff\xff\x7f"
    path = saved(tmp_path, Image.fromarray(scene()), "photo.jpg", exif=damaged)
    photo = read_photo(path)
    assert photo.size == (48, 80)
    assert photo.focal_35mm is None


def test_focal_length_of_36_mm_fills_the_width_of_a_full_frame_at_53_degrees() -> None:
    matrix = intrinsics_from_35mm(2400, 3600, 36.0)
    assert matrix[0, 0] == pytest.approx(3600)
    assert matrix[1, 1] == pytest.approx(3600)
    assert tuple(matrix[:2, 2]) == (1800, 1200)


def test_default_field_of_view_is_60_degrees_across_the_fitted_picture() -> None:
    fitted = fit(photo_of(scene(100, 300)), 64, 96)
    assert not fitted.focal_known
    half = math.degrees(math.atan2(96 / 2, fitted.intrinsics[0, 0]))
    assert 2 * half == pytest.approx(60)
    assert np.array_equal(fitted.intrinsics, default_intrinsics(64, 96))


@pytest.mark.parametrize("source", [(480, 640), (640, 480), (333, 1001), (70, 70)])
@pytest.mark.parametrize("target", [(384, 640), (64, 64), (640, 384)])
def test_a_point_projects_where_the_fitted_picture_shows_it(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    box = centre_crop(source, target)
    matrix = intrinsics_from_35mm(*source, 30.0)
    point = np.array([0.11, -0.07, 2.0])
    before, after = (m @ point / 2.0 for m in (matrix, box.intrinsics(matrix)))
    assert after[0] == pytest.approx((before[0] - box.left) * target[1] / box.width)
    assert after[1] == pytest.approx((before[1] - box.top) * target[0] / box.height)
    assert box.intrinsics(matrix)[0, 0] == pytest.approx(box.intrinsics(matrix)[1, 1])
    assert tuple(box.intrinsics(matrix)[:2, 2]) == pytest.approx((target[1] / 2, target[0] / 2))


@pytest.mark.parametrize("target", [(96, 160), (64, 64), (200, 120)])
def test_a_drawn_dot_lands_where_the_intrinsics_say(target: tuple[int, int]) -> None:
    height, width = 240, 321
    rows, columns = np.mgrid[:height, :width] + 0.5
    dot_x, dot_y = 190.5, 101.5
    glow = np.exp(-((columns - dot_x) ** 2 + (rows - dot_y) ** 2) / (2 * 9.0**2))
    pixels = np.repeat((255 * glow).round().astype(np.uint8)[..., None], 3, axis=2)
    fitted = fit(photo_of(pixels, focal=35.0), *target)
    ray = np.linalg.inv(intrinsics_from_35mm(height, width, 35.0)) @ (dot_x, dot_y, 1.0)
    expected = fitted.intrinsics @ ray
    weight = fitted.pixels[..., 0].astype(float)
    rows, columns = np.mgrid[: target[0], : target[1]] + 0.5
    seen = ((weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum())
    assert seen == pytest.approx(tuple(expected[:2]), abs=0.05)


def test_fitting_a_picture_to_its_own_size_changes_nothing() -> None:
    fitted = fit(photo_of(scene()), 48, 80)
    assert np.array_equal(fitted.pixels, scene())
    assert fitted.scale == 1
    assert fitted.source_size == (48, 80)


def test_a_given_field_of_view_beats_exif() -> None:
    fitted = fit(photo_of(scene(), focal=50.0), 48, 80, horizontal_fov=90.0)
    assert fitted.intrinsics[0, 0] == pytest.approx(40)
    assert fitted.focal_known


@pytest.mark.parametrize("fov", [0.0, -5.0, 180.0, math.nan])
def test_a_field_of_view_out_of_range_is_refused(fov: float) -> None:
    with pytest.raises(MediaError, match="field of view"):
        fit(photo_of(scene()), 48, 80, horizontal_fov=fov)


def test_pixels_are_read_only(tmp_path: Path) -> None:
    photo = read_photo(saved(tmp_path, Image.fromarray(scene())))
    fitted = fit(photo, 48, 80)
    for array in (photo.pixels, fitted.pixels, fitted.intrinsics):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_the_digest_follows_the_bytes_of_the_file(tmp_path: Path) -> None:
    first = read_photo(saved(tmp_path, Image.fromarray(scene()), "a.png"))
    again = read_photo(saved(tmp_path, Image.fromarray(scene()), "b.png"))
    other = read_photo(saved(tmp_path, Image.fromarray(scene()[::-1]), "c.png"))
    assert first.digest == again.digest != other.digest


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (200, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("LA", (0, 0), (255, 255, 255)),
        ("I;16", 257 * 100, (100, 100, 100)),
        ("I;16", 65535, (255, 255, 255)),
    ],
)
def test_colour_kinds_become_8_bit_rgb(
    tmp_path: Path, mode: str, value: int | tuple[int, ...], expected: tuple[int, ...]
) -> None:
    path = saved(tmp_path, Image.new(mode, (40, 36), value))
    pixels = read_photo(path).pixels
    assert pixels.shape == (36, 40, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.reshape(-1, 3).astype(int) - expected).max() <= 1


def test_palette_with_transparency_lies_over_white(tmp_path: Path) -> None:
    picture = Image.new("P", (40, 36), 1)
    picture.putpalette([0, 0, 0, 10, 200, 30])
    opaque = read_photo(saved(tmp_path, picture, "a.png")).pixels
    assert tuple(opaque[0, 0]) == (10, 200, 30)
    clear = read_photo(saved(tmp_path, picture, "b.png", transparency=1)).pixels
    assert tuple(clear[0, 0]) == (255, 255, 255)


def test_cmyk_is_converted(tmp_path: Path) -> None:
    pixels = read_photo(saved(tmp_path, Image.new("CMYK", (40, 36), (0, 255, 255, 0)), "a.jpg"))
    assert np.abs(pixels.pixels[10, 10].astype(int) - (255, 0, 0)).max() <= 3


def test_the_first_picture_of_a_multi_picture_jpeg_is_read(tmp_path: Path) -> None:
    second = Image.new("RGB", (80, 48))
    path = saved(
        tmp_path,
        Image.fromarray(scene()),
        "photo.jpg",
        format="MPO",
        save_all=True,
        append_images=[second],
    )
    assert Image.open(path).format == "MPO"
    assert np.abs(read_photo(path).pixels[12, 20].astype(int) - (250, 10, 10)).max() <= 4


def bomb() -> bytes:
    """A tiny PNG that claims 60000 x 60000 pixels."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)

    def part(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    data = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", data) + part(b"IEND", b"")


def truncated() -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()[:3000]


def animation() -> bytes:
    stream = io.BytesIO()
    pages = [Image.new("P", (40, 40), index) for index in range(3)]
    for index, page in enumerate(pages):
        page.putpalette([index * 80] * 768)
    pages[0].save(stream, "GIF", save_all=True, append_images=pages[1:])
    return stream.getvalue()


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"not a picture at all", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n", "not a picture"),
        (truncated(), "damaged"),
        (bomb(), "178 megapixels"),
        (animation(), "animation of 3"),
        (encoded(Image.new("RGB", (31, 400)), "PNG"), "31x400"),
        (encoded(Image.new("F", (40, 40)), "TIFF"), "floating point"),
        (encoded(Image.new("I", (40, 40), 70000), "TIFF"), "0 to 65535"),
    ],
)
def test_unusable_files_are_refused_in_one_sentence(
    tmp_path: Path, data: bytes, words: str
) -> None:
    path = tmp_path / "given.png"
    path.write_bytes(data)
    with pytest.raises(MediaError) as caught:
        read_photo(path)
    message = str(caught.value)
    assert words in message
    assert str(path) in message
    assert "\n" not in message
    assert message.endswith(".")


@pytest.mark.parametrize(
    ("name", "words"), [("absent.jpg", "does not exist"), ("", "folder"), ("a" * 300, "looked up")]
)
def test_unusable_paths_are_refused(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        read_photo(tmp_path / name)


def test_written_pictures_read_back(tmp_path: Path) -> None:
    write_picture(tmp_path / "out.png", scene())
    assert np.array_equal(read_photo(tmp_path / "out.png").pixels, scene())
    assert [file.name for file in tmp_path.iterdir()] == ["out.png"]


@pytest.mark.parametrize("name", ["out.xyz", "absent/out.png"])
def test_unwritable_pictures_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(MediaError):
        write_picture(tmp_path / name, scene())
