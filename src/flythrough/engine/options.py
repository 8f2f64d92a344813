"""Rules for single options that every entrance shares. Imports no torch."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import get_args

from flythrough.engine.words import EIGHT_BITS, CodecPrecision, Compute, MemoryChoice
from flythrough.errors import InputError, RolloutError
from flythrough.media.video import check_video_target
from flythrough.models.catalog import ModelFolder
from flythrough.rollout.chunk import CHUNK_FRAMES
from flythrough.rollout.spec import Method, Seams

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def check_numbers(frames: int, seed: int, steps: tuple[int, ...] | None = None) -> None:
    """Ranges of --frames, --seed and --steps.

    Raises:
        InputError: which one is out of range.
    """
    if not 1 <= frames <= 100_000:
        raise InputError(f"--frames {frames} is out of range; give 1 to 100000.")
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed {seed} is out of range; give 0 to 2**63 - 1.")
    if steps is not None and any(n < 1 or n > 1000 for n in steps):
        given = ",".join(map(str, steps))
        raise InputError(f"--steps {given} must be counts from 1 to 1000, such as 2,2,2.")


def check_sampling(
    model: ModelFolder,
    steps: tuple[int, ...] | None,
    guidance: float | None,
    negative: str,
    method: Method = "helios",
) -> None:
    """--steps, --guidance and --negative-prompt against the kind of model.

    Raises:
        InputError: another number of stages, a scale out of range, or a prompt without effect.
    """
    given = "" if steps is None else ",".join(map(str, steps))
    if method == "worldwarp" and steps is not None and len(steps) != 1:
        raise InputError(
            f"--steps {given} has {len(steps)} counts but method worldwarp samples in one stage; "
            f"write it like {model.defaults.worldwarp.steps}."
        )
    stages = 1 if method == "worldwarp" else len(model.defaults.steps)
    if steps is not None and len(steps) != stages:
        like = ",".join(map(str, model.defaults.steps))
        raise InputError(
            f"--steps {given} has {len(steps)} counts but the model {model.name} has {stages} "
            f"pyramid stages; write it like {like}."
        )
    if guidance is not None and not 1.0 <= guidance <= 100.0:
        raise InputError(
            f"--guidance {guidance:g} is out of range; give 1 (none) to 100 (published: 5)."
        )
    scale = usual_guidance(model, method) if guidance is None else guidance
    if negative.strip() and scale == 1.0:
        raise InputError(
            "--negative-prompt has no effect without guidance, which the model "
            f"{model.name} does not use by default; add --guidance 5 or drop it."
        )


def usual_guidance(model: ModelFolder, method: Method) -> float:
    """The guidance scale of a model where none is asked for."""
    defaults = model.defaults
    return defaults.worldwarp.guidance_scale if method == "worldwarp" else defaults.guidance_scale


def check_blend(chunks: int, rollout: Path | None) -> None:
    """--blend-chunks, which matters when a kept rollout is continued with another prompt.

    Raises:
        InputError: one chunk, which would be no way, a number out of range, or no rollout.
    """
    if chunks and rollout is None:
        raise InputError(
            f"--blend-chunks {chunks} has no effect without --rollout, since prompts change when a "
            "rollout is continued; add --rollout FOLDER or drop it."
        )
    if chunks == 1 or not 0 <= chunks <= 100:
        raise InputError(
            f"--blend-chunks {chunks} is out of range; give 0 (change prompts at once) or 2 to 100."
        )


def check_lora_scale(scale: float, active: bool) -> None:
    """--lora-scale, where an adapter is ``active``.

    Raises:
        InputError: not a number in [-4, 4], zero, or no adapter that it could act on.
    """
    if scale == 0:
        raise InputError(
            "--lora-scale 0 would leave the adapter without effect; run without it instead "
            "(--lora off with a camera, else no --lora)."
        )
    if not (math.isfinite(scale) and abs(scale) <= 4):
        raise InputError(f"--lora-scale {scale:g} is out of range; give -4 to 4, not 0 (usual: 1).")
    if scale != 1 and not active:
        raise InputError(
            f"--lora-scale {scale:g} has no effect because no adapter is active; give --lora FILE "
            "or drop it."
        )


def check_words(**given: str) -> None:
    """Words that options must have.

    Raises:
        InputError: one is empty.
    """
    for name, value in given.items():
        if not value.strip():
            raise InputError(f"--{name} is empty; give a value or leave the option out.")


def check_style(style: Path | None, scale: float, method: Method) -> None:
    """--style-lora and --style-scale, for a style beside the adapter of the camera.

    Raises:
        InputError: no camera, a scale out of range, or a scale without a style.
    """
    if style is None:
        if scale != 1:
            raise InputError(
                f"--style-scale {scale:g} has no effect without --style-lora; give both or neither."
            )
        return
    if method == "helios":
        raise InputError(
            f"--style-lora {style} is for videos with a camera, where --lora is the camera's "
            f"adapter; without one say --lora {style}."
        )
    if not (math.isfinite(scale) and 0 < abs(scale) <= 4):
        raise InputError(
            f"--style-scale {scale:g} is out of range; give -4 to 4, not 0 (usual: 1)."
        )


def check_seams(seams: str, frames: int, before: bool) -> None:
    """--seams, which matters where a chunk begins after other frames; ``before`` tells whether a
    video or a rollout that can be continued gives the first chunk or later ones such frames.

    Raises:
        InputError: an unknown word, or a border that does not exist.
    """
    if seams not in get_args(Seams):
        raise InputError(f"--seams {seams} is unknown; use one of {', '.join(get_args(Seams))}.")
    if seams == "smooth" and frames <= CHUNK_FRAMES and not before:
        raise InputError(
            f"--seams smooth has no effect on {frames} frames, which are one chunk; ask for more "
            f"than {CHUNK_FRAMES} with --frames, keep a --rollout to continue, or drop it."
        )


def check_size(size: tuple[int, int], *, pyramid: bool = True) -> None:
    """Both sides must be cut into whole tokens, of a ``pyramid`` in each of its stages.

    Raises:
        InputError: a side that is not a multiple of 64 (16 without a pyramid) from 64 to 4096.
    """
    unit = 64 if pyramid else 16
    why = "three pyramid stages of 16-pixel tokens" if pyramid else "tokens of 16 pixels"
    for side, value in zip(("height", "width"), size, strict=True):
        if value < 64 or value > 4096 or value % unit:
            near = min(4096, max(64, round(value / unit) * unit))
            raise InputError(
                f"The {side} {value} must be a multiple of {unit} from 64 to 4096 ({why}; sizes "
                f"are HEIGHTxWIDTH); try {near}."
            )


def check_device(name: str) -> None:
    """--device: its spelling, and whether it is there. Imports torch only if one was named.

    Raises:
        InputError: an unknown name, or a device that this machine does not have.
    """
    if _DEVICE.fullmatch(name) is None:
        raise InputError(f"The device {name!r} is unknown; use auto, cpu, mps, cuda or cuda:N.")
    kind, _, number = name.partition(":")
    if kind in ("auto", "cpu"):
        return
    import torch

    if kind == "mps":
        count, what = int(torch.backends.mps.is_available()), "Apple GPU"
    else:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        what = "CUDA GPU"
    if count == 0:
        raise InputError(
            f"The device {name!r} is not available here, because PyTorch sees no {what}; use cpu "
            "or auto."
        )
    if number and int(number) >= count:
        raise InputError(
            f"The device {name!r} is not available here, because PyTorch sees {count} {what}(s), "
            f"counted from cuda:0; use cuda:{count - 1} or auto."
        )


def check_memory(asked: MemoryChoice, device: str) -> None:
    """--memory against --device, as far as that is known from its name.

    Raises:
        InputError: streaming from host memory on a device that has no memory of its own.
    """
    if asked not in get_args(MemoryChoice):
        raise InputError(
            f"--memory {asked} is unknown; use one of {', '.join(get_args(MemoryChoice))}."
        )
    kind = device.partition(":")[0]
    if asked == "offload" and kind not in ("cuda", "auto"):
        raise InputError(
            f"--memory offload has no effect on the device {kind}: weights are streamed to CUDA "
            "GPUs only; use drop-text or auto."
        )


def check_compute(asked: Compute, device: str) -> None:
    """--fast, --compile and --precision as one word, against --device.

    Raises:
        InputError: an unknown word, or a path that the device cannot take.
    """
    if asked not in get_args(Compute):
        raise InputError(
            f"compute {asked!r} is unknown; use one of {', '.join(get_args(Compute))}."
        )
    kind = device.partition(":")[0]
    if kind == "mps" and asked in ("compiled", *EIGHT_BITS):
        raise InputError(f"compute {asked!r} is not available on the device {kind}; use 'fast'.")


def check_codec_precision(asked: CodecPrecision, device: str) -> None:
    """--codec-precision against --device, as far as that is known from its name.

    Raises:
        InputError: an unknown word, or half precision where there is no GPU for it.
    """
    if asked not in get_args(CodecPrecision):
        raise InputError(
            f"--codec-precision {asked} is unknown; use one of "
            f"{', '.join(get_args(CodecPrecision))}."
        )
    kind = device.partition(":")[0]
    if asked in ("bf16", "fp16") and kind not in ("cuda", "auto"):
        raise InputError(
            f"--codec-precision {asked} is for CUDA GPUs: on the device {kind} the codec runs in "
            "float32; drop it."
        )


def check_targets(
    output: Path | None, save_warp: Path | None, save_mask: Path | None, rollout: Path | None
) -> None:
    """Everything that will be written can be written.

    Raises:
        MediaError: a video has an unknown suffix or no writable folder.
        InputError: two outputs are one file.
        RolloutError: the rollout folder is a file or holds a rollout already.
    """
    named = {"video": output, "warp": save_warp, "mask": save_mask}
    taken: dict[Path, str] = {}
    for what, target in named.items():
        if target is None:
            continue
        check_video_target(target)
        other = taken.setdefault(target.resolve(), what)
        if other != what:
            raise InputError(f"The {other} and the {what} would both be {target}; name two files.")
    if rollout is not None:
        check_new_rollout(rollout)


def check_new_rollout(rollout: Path) -> None:
    """A folder that a rollout can be stored in.

    Raises:
        RolloutError: it is a file, holds a rollout already, or has no parent folder.
    """
    if (rollout / "rollout.json").exists():
        raise RolloutError(
            f"{rollout} already holds a rollout; run `flythrough continue {rollout}` or name "
            "another folder."
        )
    if rollout.exists() and not rollout.is_dir():
        raise RolloutError(f"{rollout} is a file; name a new folder for the rollout.")
    if not rollout.exists() and not rollout.absolute().parent.is_dir():
        raise RolloutError(
            f"The folder {rollout.parent} of the rollout {rollout.name} does not exist; create it "
            "first."
        )
