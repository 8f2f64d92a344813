"""Archives cut off or scrambled anywhere give a sentence of our own, or are read as they are."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flythrough.cameras.formats import read_trajectory
from flythrough.errors import CameraError, GeometryError
from flythrough.geometry.estimators.files import read_depth

FOREIGN = ("allow_", "magic", "zip file", "zlib", "Bad ", "header", "reshape", "buffer")


def archive(compressed: bool) -> bytes:
    content = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(content, camera_poses=np.tile(np.eye(4), (3, 1, 1)), depth=np.ones((4, 5)))
    return content.getvalue()


def broken() -> list[bytes]:
    found = [b"", b"PK", b"PK\x03\x04" + bytes(60), b"\x93NUMPY\x01\x00v\x00{'descr'", b"words"]
    rng = np.random.default_rng(4)
    for data in (archive(False), archive(True)):
        found += [data[:cut] for cut in range(10, len(data), 97)]
        for place in range(0, len(data), 23):
            found.append(data[:place] + rng.bytes(6) + data[place + 6 :])
    objects = io.BytesIO()
    np.savez(objects, camera_poses=np.array([{}], object), depth=np.array([{}], object))
    return [*found, objects.getvalue()]


@pytest.mark.parametrize(
    ("read", "error"), [(read_trajectory, CameraError), (read_depth, GeometryError)]
)
def test_no_foreign_words(
    read: Callable[[Path], object], error: type[Exception], tmp_path: Path
) -> None:
    file, refused = tmp_path / "x.npz", 0
    for data in broken():
        file.write_bytes(data)
        try:
            read(file)
        except error as found:
            refused += 1
            words = str(found).replace(str(file), "")
            assert not any(word in words for word in FOREIGN), words
            assert words.endswith(".")
    assert refused > 30
