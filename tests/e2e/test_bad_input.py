"""Bad input: exit status 2, one sentence on stderr, nothing written, no model loaded."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flythrough.media.video import write_video
from throwaway import Command

GOOD = {"--camera": "forward 0.3", "--frames": "33", "-o": "out.mp4"}

CASES: dict[str, dict[str, str | None]] = {
    "camera verb": {"--camera": "sideways 3"},
    "camera amount": {"--camera": "forward"},
    "camera empty": {"--camera": ""},
    "camera file missing": {"--camera": "none.npz"},
    "camera file damaged": {"--camera": "broken.npz"},
    "metres without scale": {"--camera": "forward 1m", "--geometry": "flat"},
    "photo missing": {"IMAGE": "none.png"},
    "photo damaged": {"IMAGE": "broken.png"},
    "photo is a folder": {"IMAGE": "."},
    "photo too small": {"IMAGE": "dot.png"},
    "photo absent": {"IMAGE": None},
    "frames zero": {"--frames": "0"},
    "frames word": {"--frames": "many"},
    "size form": {"--size": "big"},
    "size not a multiple": {"--size": "100x128"},
    "size too small": {"--size": "0x64"},
    "seed negative": {"--seed": "-1"},
    "steps form": {"--steps": "a,b"},
    "memory without effect": {"--memory": "offload", "--device": "cpu"},
    "memory unknown": {"--memory": "little"},
    "steps count": {"--steps": "2,2"},
    "guidance too small": {"--guidance": "0.5"},
    "guidance word": {"--guidance": "strong"},
    "negative prompt without guidance": {"--negative-prompt": "blur"},
    "blend of one chunk": {"--blend-chunks": "1", "--rollout": "run"},
    "blend without rollout": {"--blend-chunks": "3"},
    "output is the photo's camera": {"--camera": "path.mp4", "-o": "path.mp4"},
    "output is the clip": {"IMAGE": None, "--camera": None, "--video": "c.mp4", "-o": "c.mp4"},
    "output is the warp": {"--camera": None, "--warp": "warp.mp4", "-o": "warp.mp4"},
    "lora empty": {"--lora": ""},
    "model empty": {"--model": ""},
    "anchor with a camera": {"--anchor": "second"},
    "preset unknown": {"--preset": "fast"},
    "preset without camera": {"--camera": None, "--preset": "realtime"},
    "warp band unknown": {"--warp-band": "long"},
    "warp band without camera": {"--camera": None, "--warp-band": "patch-mid"},
    "threshold out of range": {"--visible-threshold": "1.5"},
    "threshold not finite": {"--visible-threshold": "nan"},
    "threshold word": {"--visible-threshold": "much"},
    "threshold without camera": {"--camera": None, "--visible-threshold": "0.5"},
    "align without camera": {"--camera": None, "--no-align": ""},
    "select without camera": {"--camera": None, "--no-select": ""},
    "threshold without selection": {"--no-select": "", "--visible-threshold": "0.5"},
    "fill unknown": {"--fill": "white"},
    "fill without camera": {"--camera": None, "--fill": "black"},
    "fill with a warp": {"--camera": None, "--warp": "warp.mp4", "--fill": "black"},
    "fill twice": {"--fill": "black", "--warp-settings": "fill=black"},
    "warp setting unknown": {"--warp-settings": "colour=red"},
    "warp setting without value": {"--warp-settings": "fill_radius"},
    "warp setting of another kind": {"--warp-settings": "fill_radius=wide"},
    "warp setting out of range": {"--warp-settings": "fill_radius=99"},
    "warp setting given twice": {"--warp-settings": "fill_radius=1,fill_radius=2"},
    "warp setting without effect": {"--warp-settings": "mesh_break=none,depth_rtol=0.1"},
    "warp setting of later keyframes": {"--geometry": "flat", "--warp-settings": "keyframes=joint"},
    "style without camera": {"--camera": None, "--style-lora": "broken.safetensors"},
    "style missing": {"--style-lora": "none.safetensors"},
    "style scale alone": {"--style-scale": "0.5"},
    "convention of words": {"--camera-convention": "opengl"},
    "scale of words": {"--camera-scale": "0.5"},
    "scale without camera": {"--camera": None, "--camera-scale": "0.5"},
    "convention without camera": {"--camera": None, "--camera-convention": "opengl"},
    "preset with steps that do not fit": {"--preset": "realtime", "--steps": "1,1"},
    "anchor unknown": {"--camera": None, "--anchor": "third"},
    "seams unknown": {"--seams": "soft"},
    "seams of one chunk": {"--seams": "smooth", "--frames": "33"},
    "video and image": {"--camera": None, "--video": "warp.mp4"},
    "video and camera": {"IMAGE": None, "--video": "warp.mp4"},
    "video missing": {"IMAGE": None, "--camera": None, "--video": "none.mp4"},
    "video too short": {"IMAGE": None, "--camera": None, "--video": "short.mp4"},
    "method unknown": {"--method": "magic"},
    "method without camera": {"--camera": None, "--method": "warp-as-history"},
    "camera with helios": {"--method": "helios"},
    "geometry without camera": {"--camera": None, "--geometry": "flat"},
    "lora without camera": {"--camera": None, "--lora": "off"},
    "lora scale of nothing": {"--lora-scale": "0"},
    "lora scale too large": {"--lora-scale": "4.5"},
    "lora scale not finite": {"--lora-scale": "nan"},
    "lora scale without adapter": {"--lora": "off", "--lora-scale": "0.5"},
    "lora scale without camera": {"--camera": None, "--lora-scale": "0.5"},
    "lora folder without adapter": {"--lora": "bare"},
    "save-warp without camera": {"--camera": None, "--save-warp": "w.mp4"},
    "save-mask without camera": {"--camera": None, "--save-mask": "m.mp4"},
    "save-mask with a warp": {"--camera": None, "--warp": "warp.mp4", "--save-mask": "m.mp4"},
    "warp and mask equal": {"--save-warp": "w.mp4", "--save-mask": "w.mp4"},
    "save-mask suffix": {"--save-mask": "m.png"},
    "camera near miss": {"--camera": "foward 0.5"},
    "option near miss": {"--frame": "33"},
    "nothing to start from": {"IMAGE": None, "--camera": None},
    "blank prompt": {"IMAGE": None, "--camera": None, "--prompt": "  "},
    "geometry unknown": {"--geometry": "guess"},
    "geometry missing": {"--geometry": "none.npy"},
    "geometry of another shape": {"--geometry": "square.npy"},
    "geometry negative": {"--geometry": "negative.npy"},
    "lora missing": {"--lora": "none.safetensors"},
    "lora damaged": {"--lora": "broken.safetensors"},
    "model missing": {"--model": "none"},
    "model incomplete": {"--model": "."},
    "warp and camera": {"--warp": "warp.mp4"},
    "warp missing": {"--camera": None, "--warp": "none.mp4"},
    "warp and geometry": {"--camera": None, "--warp": "warp.mp4", "--geometry": "flat"},
    "mask without warp": {"--warp-mask": "warp.mp4"},
    "output suffix": {"-o": "out.gif"},
    "output folder": {"-o": "none/out.mp4"},
    "output absent": {"-o": None},
    "outputs equal": {"--save-warp": "out.mp4"},
    "rollout is a file": {"--rollout": "photo.png"},
    "rollout folder missing": {"--rollout": "none/run"},
    "device unknown": {"--device": "abacus"},
    "option unknown": {"--speed": "9"},
}
OPENS_TENSOR_FILES = {
    "geometry unknown",
    "geometry missing",
    "geometry of another shape",
    "geometry negative",
    "lora damaged",
}


def words(model: Path, changes: dict[str, str | None]) -> list[str]:
    chosen: dict[str, str | None] = {"IMAGE": "photo.png", "--model": str(model), **GOOD, **changes}
    image = chosen.pop("IMAGE")
    pairs = [(key, value) for key, value in chosen.items() if value is not None]
    options = [part for pair in pairs for part in pair if part or not pair[0].startswith("--no-")]
    return ["generate", *([] if image is None else [image]), *options]


@pytest.fixture
def workplace(tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a good photo and broken files of every kind."""
    (tmp_path / "photo.png").write_bytes(photo.read_bytes())
    for name in ("broken.png", "broken.npz", "broken.safetensors", "warp.mp4"):
        (tmp_path / name).write_bytes(b"not what the name says")
    (tmp_path / "bare").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "dot.png")
    write_video(tmp_path / "c.mp4", np.zeros((33, 64, 64, 3), np.uint8), 16.0, {})
    write_video(tmp_path / "short.mp4", np.zeros((5, 64, 64, 3), np.uint8), 16.0, {})
    np.save(tmp_path / "square.npy", np.ones((50, 50), np.float32))
    np.save(tmp_path / "negative.npy", np.full((96, 192), -1, np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_refusal(status: int, error: str) -> None:
    assert status == 2, error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error


@pytest.mark.parametrize("case", CASES)
def test_generate_refuses(
    flythrough: Command, tiny_model: Path, workplace: Path, case: str
) -> None:
    before = sorted(workplace.rglob("*"))
    answer = flythrough(*words(tiny_model, CASES[case]))
    check_refusal(answer.status, answer.err)
    assert answer.out == ""
    assert sorted(workplace.rglob("*")) == before


def test_refusals_load_no_torch(tiny_model: Path, workplace: Path) -> None:
    lines = [words(tiny_model, c) for name, c in CASES.items() if name not in OPENS_TENSOR_FILES]
    lines += [
        ["continue", "none"],
        ["branch", "none", "new"],
        ["rewind", "none", "--chunks", "1"],
        ["geometry", "none.png", "-o", "depth.npz", "--model", str(tiny_model)],
        ["geometry", "photo.png", "-o", "depth.txt", "--model", str(tiny_model)],
        ["doctor", "--model", "none"],
        ["camera", "sideways 3", "-o", "path.npz"],
    ]
    script = f"""
        import sys
        from flythrough.cli.main import run
        for words in {lines!r}:
            assert run(words) == 2, words
        loaded = {{"torch", "diffusers", "transformers"}} & set(sys.modules)
        assert not loaded, loaded
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=workplace,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == len(lines)


def test_path_in_metres_is_fine_with_the_network_of_the_model(
    flythrough: Command, tiny_model: Path, workplace: Path
) -> None:
    answer = flythrough(*words(tiny_model, {"--camera": "forward 0.1m"}))
    assert answer.status == 0, answer.err
    assert (workplace / "out.mp4").exists()


def test_adapter_of_another_model_is_refused_and_nothing_is_written(
    flythrough: Command, tiny_model: Path, workplace: Path
) -> None:
    import torch

    from flythrough.models.lora_files import save_lora

    layer = "blocks.0.attn1.to_q"
    sides = {"lora_A": torch.zeros(2, 8), "lora_B": torch.zeros(8, 2)}
    state = {f"{layer}.{side}.weight": value for side, value in sides.items()}
    save_lora(workplace / "other.safetensors", state, 2, 2.0)
    before = sorted(workplace.rglob("*"))
    chosen = words(tiny_model, {"--lora": "other.safetensors", "--rollout": "run"})
    answer = flythrough(*chosen)
    check_refusal(answer.status, answer.err)
    assert sorted(workplace.rglob("*")) == before
