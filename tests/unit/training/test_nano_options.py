"""Options of `train nano` that a part does not use, or out of range, are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flythrough.errors import InputError
from flythrough.models.catalog import adapter_file
from flythrough.training.nano import NanoRun, check_run


@pytest.mark.parametrize(
    ("part", "given", "words"),
    [
        ("codec", {"band": "patch_mid"}, "--warp-band has no effect on codec"),
        ("codec", {"warp_stages": 2}, "--warp-stages has no effect on codec"),
        ("denoiser", {"detail": 0.1}, "--detail has no effect on denoiser"),
        ("codec", {"detail": 2.0}, "--detail 2.0 is out of range"),
        ("codec", {"keep_encoder": True}, "--keep-encoder needs a codec to keep"),
        ("codec", {"keep_text": True}, "--keep-text has no effect on codec"),
        ("geometry", {"size": (64, 64)}, "--size has no effect on geometry"),
        ("denoiser", {"band": "patch_mid"}, "--warp-band has no effect on denoiser"),
        ("lora", {"warp_stages": 4}, "--warp-stages 4 is more than the 3 stages"),
        ("lora", {"steps": 0}, "--steps 0 is out of range"),
        ("lora", {"batch": 0}, "--batch 0 is out of range"),
        ("lora", {"learning_rate": 2.0}, "--learning-rate 2.0 is out of range"),
        ("lora", {"base": Path("no-such-folder")}, "--base no-such-folder is no folder"),
    ],
)
def test_refused(part: Any, given: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        check_run(NanoRun(part=part, folder=tmp_path / "run", **given))


def test_each_band_has_its_own_adapter_file() -> None:
    assert adapter_file("short") == "camera.safetensors"
    assert adapter_file("patch_mid") == "camera_patch_mid.safetensors"
    check_run(NanoRun(part="lora", folder=Path("run"), band="patch_mid"))
