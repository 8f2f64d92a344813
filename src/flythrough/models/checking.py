"""Whether a model folder is whole and its weights fit, without loading them.

Tensor names, shapes and types come from file headers; what they should be comes from the networks
that the configurations describe, built without memory.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from flythrough.disk import read_json
from flythrough.errors import WeightsError
from flythrough.models.expected import PART_OF_CLASS, Expected, expected_tensors
from flythrough.models.headers import FLOATS, StoredTensor, read_header
from flythrough.models.hub import find_local, is_complete
from flythrough.models.lora_layouts import matrix_name
from flythrough.models.monocular_files import DEPTH_CLASSES
from flythrough.models.parts import LAYOUTS, missing_files, weights_of
from flythrough.models.published import ENTRIES, PIPELINE_PARTS, Entry

_PUBLISHED = {
    "adapter": ("transformer", "HeliosTransformer3DModel"),
    "geometry": ("geometry", "Pi3X"),
    "cut3r": ("geometry", "TTT3R"),
    "codec": ("vae", "TAEHV"),
}


@dataclass(frozen=True)
class PartReport:
    """What was found in one part; ``faults`` are the rest of what is wrong, in words."""

    part: str
    kind: str = ""
    tensors: int = 0
    numbers: int = 0
    dtypes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshaped: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return not (self.missing or self.unexpected or self.misshaped or self.faults)


@dataclass(frozen=True)
class CheckReport:
    """All parts of a model."""

    name: str
    path: Path
    parts: tuple[PartReport, ...] = field(default=())

    @property
    def good(self) -> bool:
        return all(part.good for part in self.parts)


def check_model(name_or_folder: str) -> CheckReport:
    """Check a model by name, or a folder with a whole model or a single part.

    Raises:
        WeightsError: there is no such model or folder, or it is not on this machine.
    """
    entry = ENTRIES.get(name_or_folder)
    if entry is not None:
        return _check_entry(entry)
    folder = Path(name_or_folder).expanduser()
    if not folder.is_dir():
        raise WeightsError(
            f"There is no model or folder {name_or_folder!r}; give a folder or one of "
            f"{', '.join(ENTRIES)}."
        )
    return CheckReport(folder.name, folder, _check_any(folder))


def check_part(folder: Path, part: str) -> PartReport:
    """Check the folder of one part: files, and that its tensors are those its network has."""
    layout = LAYOUTS[part]
    faults = tuple(missing_files(folder, part))
    file = folder / layout.config
    if not file.is_file():
        return PartReport(part, faults=faults)
    try:
        config = read_json(file)
    except (OSError, ValueError, TypeError) as error:
        return PartReport(part, faults=(*faults, f"{file.name} cannot be read ({error})"))
    if not layout.weights:
        kind = config.get("_class_name") or config.get("tokenizer_class") or ""
        return PartReport(part, str(kind), faults=faults)
    try:
        kind, expected = expected_tensors(part, config)
    except WeightsError as error:
        return PartReport(part, faults=(*faults, str(error)))
    found, strays = _stored(folder, layout.weights)
    return replace(compare(part, expected, found), kind=kind, faults=(*faults, *strays))


def compare(part: str, expected: Expected, found: dict[str, StoredTensor]) -> PartReport:
    """Hold the tensors of a part's files against those its network needs."""
    known = found.keys() & expected.shapes.keys()
    unknown = found.keys() - known
    wrong = [
        f"{name} {list(found[name].shape)} instead of {list(expected.shapes[name])}"
        for name in sorted(known)
        if found[name].shape != expected.shapes[name]
    ]
    wrong += [
        f"{name} is stored as {found[name].dtype}"
        for name in sorted(known - expected.integers)
        if found[name].dtype not in FLOATS
    ]
    return PartReport(
        part,
        tensors=len(found),
        numbers=sum(tensor.count for tensor in found.values()),
        dtypes=_dtypes(found),
        missing=tuple(expected.missing(found)),
        unexpected=tuple(
            sorted(n for n in unknown if not any(re.search(p, n) for p in expected.ignored))
        ),
        misshaped=tuple(wrong),
    )


def check_adapter(file: Path, expected: Expected) -> PartReport:
    """Check a LoRA file against the denoiser it is for: both sides of every layer, one rank."""
    part = f"{file.parent.name}/{file.name}" if file.parent.name == "lora" else file.name
    try:
        found = read_header(file)
    except WeightsError as error:
        return PartReport(part, faults=(str(error),))
    sides: dict[str, dict[str, tuple[int, ...]]] = {}
    unexpected: list[str] = []
    for name, tensor in found.items():
        matrix = matrix_name(name)
        if matrix is None or f"{matrix[0]}.weight" not in expected.shapes:
            unexpected.append(name)
        else:
            sides.setdefault(matrix[0], {})[matrix[1]] = tensor.shape
    missing = [f"{k}.lora_{side}" for k, v in sides.items() for side in "AB" if side not in v]
    wrong = []
    for layer, pair in sides.items():
        rows, columns = (
            expected.shapes[f"{layer}.weight"][0],
            expected.shapes[f"{layer}.weight"][1:],
        )
        down, up = pair.get("A", ()), pair.get("B", ())
        if down and up and (down[1:] != columns or up[:1] != (rows,) or up[1:] != down[:1]):
            wrong.append(f"{layer} {list(down)} and {list(up)} on {[rows, *columns]}")
    return PartReport(
        part,
        "LoRA",
        len(found),
        sum(tensor.count for tensor in found.values()),
        _dtypes(found),
        tuple(missing),
        tuple(sorted(unexpected)),
        tuple(wrong),
        () if sides or unexpected else ("it holds no tensors",),
    )


def _check_entry(entry: Entry) -> CheckReport:
    local = find_local(entry)
    if local is None:
        raise WeightsError(
            f"{entry.name} is not on this machine; run `flythrough models pull {entry.name}`, or "
            "give the folder it lies in."
        )
    if entry.kind == "depth":
        return CheckReport(entry.name, local.path, (check_part(local.path, "depth"),))
    if entry.kind == "captioner":
        return CheckReport(entry.name, local.path, (_check_captioner(entry, local.path),))
    whole = entry.kind == "model"
    parts = _check_folder(local.path) if whole else (_check_file(entry, local.path),)
    return CheckReport(entry.name, local.path, parts)


def _check_captioner(entry: Entry, folder: Path) -> PartReport:
    """Its files alone: which tensors it needs is transformers' affair."""
    lost = tuple(f"{file} is missing" for file in entry.parts if not (folder / file).is_file())
    found, strays = _stored(folder, "model")
    numbers = sum(tensor.count for tensor in found.values())
    faults = (*lost, *strays)
    return PartReport("captioner", entry.name, len(found), numbers, _dtypes(found), faults=faults)


def _check_any(folder: Path) -> tuple[PartReport, ...]:
    """A folder of parts, a part by itself, or a published file without a configuration."""
    if any((folder / part).is_dir() for part in PIPELINE_PARTS):
        return _check_folder(folder)
    if (folder / "config.json").is_file():
        part = _part_of(folder)
        return _check_folder(folder) if part is None else (check_part(folder, part),)
    for entry in ENTRIES.values():
        if entry.kind != "model" and is_complete(entry, folder):
            return (_check_file(entry, folder),)
    return _check_folder(folder)


def _check_file(entry: Entry, folder: Path) -> PartReport:
    """A published weight file; its network is the published one, which the classes default to."""
    part, kind = _PUBLISHED.get(entry.name, _PUBLISHED.get(entry.kind, ("", "")))
    expected = expected_tensors(part, {"_class_name": kind})[1]
    file = folder / entry.parts[0]
    if entry.kind == "adapter":
        return check_adapter(file, expected)
    try:
        return replace(compare(entry.name, expected, read_header(file)), kind=kind)
    except WeightsError as error:
        return PartReport(entry.name, kind, faults=(str(error),))


def _check_folder(folder: Path) -> tuple[PartReport, ...]:
    more = (name for name in ("st_diff", "geometry") if (folder / name).is_dir())
    names = [*PIPELINE_PARTS, *more]
    reports = [check_part(folder / part, part) for part in names]
    for file in sorted((folder / "lora").glob("*.safetensors")):
        try:
            config = read_json(folder / "transformer" / "config.json")
            expected = expected_tensors("transformer", config)[1]
        except (OSError, ValueError, TypeError, WeightsError):
            continue  # reported with the transformer
        reports.append(check_adapter(file, expected))
    return tuple(reports)


def _part_of(folder: Path) -> str | None:
    """Which part the folder of a single network is, by its configuration."""
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError, TypeError):
        return None
    if config.get("model_type") is not None:
        return "depth" if config["model_type"] in DEPTH_CLASSES else "text_encoder"
    return PART_OF_CLASS.get(str(config.get("_class_name", "")))


def _stored(folder: Path, stem: str) -> tuple[dict[str, StoredTensor], list[str]]:
    """All tensors of a part's files; unreadable files, and where files and index disagree."""
    weights = weights_of(folder, stem)
    found: dict[str, StoredTensor] = {}
    strays: list[str] = []
    for file in weights.files:
        try:
            tensors = read_header(file)
        except WeightsError as error:
            strays.append(str(error))
            continue
        for name, tensor in tensors.items():
            if name in found:
                strays.append(f"{name} is stored twice")
            if weights.index is not None and weights.index.get(name) != file.name:
                strays.append(f"{name} is in {file.name}, but the index says otherwise")
            found[name] = tensor
    return found, strays


def _dtypes(found: dict[str, StoredTensor]) -> tuple[str, ...]:
    counted = Counter(tensor.dtype for tensor in found.values())
    return tuple(dtype for dtype, _ in counted.most_common())
