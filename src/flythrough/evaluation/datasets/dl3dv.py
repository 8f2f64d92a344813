"""DL3DV-10K: a folder a scene with ``transforms.json`` (nerfstudio's layout) and pictures in
``images``, ``images_2``, ``images_4`` or ``images_8``; splits are folders above (1K, 2K, ...)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flythrough.cameras.formats.conventions import Convention
from flythrough.errors import InputError
from flythrough.evaluation.datasets.layout import Scene, json_of

_INNER = ("colmap", "nerfstudio", "gaussian_splat")
_FOLDERS = ("images_8", "images_4", "images_2", "images")


class DL3DV:
    """Cameras in OpenGL axes; lens distortion is small and left as it is."""

    def names(self, data: Path, split: str) -> list[str]:
        return sorted(_scenes(data, split))

    def scene(self, data: Path, split: str, name: str) -> Scene:
        file = _scenes(data, split).get(name)
        if file is None:
            raise InputError(f"DL3DV has no scene {name} below {data}; give one of its folders.")
        told = json_of(file)
        try:
            frames = sorted(told["frames"], key=lambda frame: str(frame["file_path"]))
            fx, fy, cx, cy, w, h = (
                float(told[key]) for key in ("fl_x", "fl_y", "cx", "cy", "w", "h")
            )
            poses = np.array([frame["transform_matrix"] for frame in frames], np.float64)
            names = [Path(frame["file_path"]).name for frame in frames]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"The file {file} lacks frames with cameras as nerfstudio writes them ({error!r}); "
                "download it again."
            ) from error
        folder = next((f for f in _FOLDERS if (file.parent / f).is_dir()), None)
        if folder is None:
            raise InputError(
                f"The scene {name} has no pictures in {', '.join(_FOLDERS)}; download them too."
            )
        pictures = tuple(file.parent / folder / one for one in names)
        missing = next((picture for picture in pictures if not picture.is_file()), None)
        if missing is not None:
            raise InputError(f"The picture {missing} is missing; download the scene again.")
        k = np.array([[fx / w, 0, cx / w], [0, fy / h, cy / h], [0, 0, 1]])
        return Scene(pictures, k, Convention("opengl").to_ours(poses))


def _scenes(data: Path, split: str) -> dict[str, Path]:
    """transforms.json of each scene by its name."""
    above = data / split if split and (data / split).is_dir() else data
    found = {}
    for file in sorted(above.rglob("transforms.json")):
        folder = file.parent
        while folder.name in _INNER:
            folder = folder.parent
        found[folder.name] = file
    if not found:
        raise InputError(f"There is no transforms.json below {above}; give DL3DV's folder.")
    return found
