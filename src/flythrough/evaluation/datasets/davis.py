"""DAVIS: ``JPEGImages/480p/NAME/00000.jpg``, ``Annotations/480p/NAME/00000.png`` (not 0 where the
objects are), and lists of names in ``ImageSets/2017/SPLIT.txt``. It has no cameras."""

from __future__ import annotations

from pathlib import Path

from flythrough.errors import InputError
from flythrough.evaluation.datasets.layout import Scene, first_folder, pictures_in

_RESOLUTIONS = ("480p", "Full-Resolution")
_LISTS = ("2017", "2016", "480p")


class Davis:
    """Clips in which things move; cameras are given beside (``--cameras``)."""

    def names(self, data: Path, split: str) -> list[str]:
        images = _images(data)
        for listed in (data / "ImageSets" / year / f"{split}.txt" for year in _LISTS):
            if listed.is_file():
                # The lists of 2016 name pairs of files instead of clips.
                words = [w for w in listed.read_text(encoding="utf-8").split("\n") if w.strip()]
                names = [Path(w.split()[0]).parent.name or w.strip() for w in words]
                return [n for n in dict.fromkeys(names) if (images / n).is_dir()]
        if split != "all":
            raise InputError(f"DAVIS has no list ImageSets/2017/{split}.txt; give --split all.")
        return sorted(folder.name for folder in images.iterdir() if folder.is_dir())

    def scene(self, data: Path, split: str, name: str) -> Scene:
        del split
        images = _images(data) / name
        pictures = pictures_in(images)
        if len(pictures) < 2:
            raise InputError(f"The clip {images} has {len(pictures)} frames; unpack DAVIS again.")
        masks = data / "Annotations" / images.parent.name / name
        found = tuple(masks / f"{picture.stem}.png" for picture in pictures)
        return Scene(pictures, masks=found if all(one.is_file() for one in found) else ())


def _images(data: Path) -> Path:
    places = [data / "JPEGImages" / resolution for resolution in _RESOLUTIONS]
    return first_folder(places, "folder of frames", "give the folder that holds JPEGImages")
