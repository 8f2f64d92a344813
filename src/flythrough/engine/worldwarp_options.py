"""Options of method worldwarp: checked, and turned into what a rollout keeps. Imports no torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from flythrough.engine.files import is_streaming, names_file
from flythrough.engine.words import NoiseField
from flythrough.errors import InputError, RolloutError
from flythrough.models.captioner_folder import find_captioner
from flythrough.models.catalog import BUNDLED, ModelFolder, find_model
from flythrough.models.published import CAPTIONER_NAMES
from flythrough.rollout.window import STANDARD, Window

if TYPE_CHECKING:
    from flythrough.engine.request import GenerateRequest
    from flythrough.rollout.spec import Method


def only_st_diff(model: str) -> bool:
    """Whether a model folder's own transformer is an ST-Diff, so that worldwarp is its method."""
    return (
        model != BUNDLED and Path(model).expanduser().is_dir() and not find_model(model).is_helios
    )


def check_worldwarp(request: GenerateRequest) -> None:
    """Refuse what method worldwarp cannot do or does not use.

    Raises:
        InputError: which option, and what to do instead.
        WeightsError: the captioner is not on this machine.
    """
    if request.video is not None:
        raise InputError(
            "A --video cannot be continued with method worldwarp; give its last frame as IMAGE, or "
            "use --method helios."
        )
    if request.warp is not None:
        raise InputError(
            f"--warp {request.warp} has no effect with method worldwarp, which renders its own "
            "hints; drop it or use --method warp-as-history."
        )
    if request.camera is None:
        raise InputError(
            "Method 'worldwarp' was chosen without a camera; give --camera PATH, or use --method "
            "helios."
        )
    _check_start(request)
    idle = {
        f"--lora {request.lora}": request.lora != "default",
        f"--anchor {request.anchor}": request.anchor != "first",
        f"--seams {request.seams}": request.seams != "independent",
        f"--style-lora {request.style_lora}": request.style_lora is not None,
    }
    for option, given in idle.items():
        if given:
            raise InputError(f"{option} has no effect with method worldwarp; drop it.")
    if request.noise_field is not None and request.noise_field not in get_args(NoiseField):
        raise InputError(
            f"--noise-field {request.noise_field} is unknown; choose "
            f"{' or '.join(get_args(NoiseField))}."
        )
    if request.caption is not None:
        if request.blend_chunks:
            raise InputError(
                f"--blend-chunks {request.blend_chunks} does not go with --caption "
                f"{request.caption}, whose words change with every chunk, so that no change would "
                "ever end; drop one of them."
            )
        find_captioner(request.caption)
    check_strength(request.strength)


def check_strength(strength: float | None) -> None:
    """--strength, if given.

    Raises:
        InputError: it is out of range.
    """
    if strength is not None and not (math.isfinite(strength) and 0 <= strength <= 1):
        raise InputError(
            f"--strength {strength:g} is out of range; give 0 (keep what was rendered) to 1 "
            "(ignore it)."
        )


def _check_start(request: GenerateRequest) -> None:
    """There is a photo, or a prompt to make one from."""
    if request.image is None and not request.prompt.strip():
        raise InputError(
            "Method 'worldwarp' starts from a photo or a prompt and neither was given; give IMAGE "
            "or --prompt TEXT."
        )
    if (
        request.image is None
        and names_file(request.geometry)
        and not is_streaming(request.geometry)
        and not Path(request.geometry).expanduser().is_dir()
    ):
        raise InputError(
            f"--geometry {request.geometry} is the depth of a photo and none was given; give IMAGE "
            "or a depth network."
        )
    strength = request.restyle
    if strength is None:
        return
    if request.image is None or not request.prompt.strip():
        lacks = "an IMAGE to repaint" if request.image is None else "a --prompt"
        raise InputError(f"--restyle {strength:g} has no effect without {lacks}; give one.")
    if not (math.isfinite(strength) and 0 < strength <= 1):
        raise InputError(
            f"--restyle {strength:g} is out of range; give more than 0 (hardly changed) and at "
            "most 1 (all new), such as 0.7."
        )


_OTHER_METHOD = "give a photo and --camera, and --method worldwarp or none"


def check_denoiser(method: Method, model: ModelFolder, remedy: str = _OTHER_METHOD) -> None:
    """The model has the denoiser that the method needs; ``remedy`` is what to do with an ST-Diff
    alone.

    Raises:
        InputError: it has not.
    """
    if method == "worldwarp" and model.st_diff is None:
        raise InputError(
            f"Method 'worldwarp' needs an ST-Diff and the model {model.name} has none; use a "
            "folder whose transformer (or st_diff) is a WanTransformer3DModel."
        )
    if method != "worldwarp" and not model.is_helios:
        raise InputError(
            f"The model {model.name} is an ST-Diff, which method {method!r} cannot run; {remedy}."
        )


def worldwarp_window(request: GenerateRequest, method: Method, model: ModelFolder) -> Window:
    """Length and overlap of the chunks; the standard ones for other methods.

    Raises:
        InputError: counts that cannot be, or an option without effect.
    """
    own = (
        ("--strength", request.strength),
        ("--chunk-frames", request.chunk_frames),
        ("--overlap", request.overlap),
        ("--restyle", request.restyle),
    )
    if method != "worldwarp":
        if request.caption is not None:
            raise no_captioner(request.caption, method)
        if request.noise_field is not None:
            raise InputError(
                f"--noise-field {request.noise_field} has no effect with method {method}; drop it "
                "or use --method worldwarp."
            )
        for option, value in own:
            if value is not None:
                raise InputError(
                    f"{option} {value:g} has no effect with method {method}; drop it or use "
                    "--method worldwarp."
                )
        return STANDARD
    usual = model.defaults.worldwarp
    frames = usual.chunk_frames if request.chunk_frames is None else request.chunk_frames
    overlap = usual.overlap if request.overlap is None else request.overlap
    window = checked_window(frames, overlap)
    if request.overlap is not None and request.rollout is None and request.frames <= frames:
        raise InputError(
            f"--overlap {overlap} has no effect on {request.frames} frames, which are one chunk; "
            f"ask for more than {frames} with --frames, keep a --rollout to continue, or drop it."
        )
    return window


def no_captioner(name: str, method: Method) -> InputError:
    """The refusal of --caption with another method."""
    return InputError(
        f"--caption {name} has no effect with method {method}; drop it or use --method worldwarp."
    )


def checked_window(frames: int, overlap: int) -> Window:
    """Chunks of ``frames`` frames that share ``overlap`` with the past.

    Raises:
        InputError: counts that cannot be.
    """
    if overlap == 0:
        raise InputError("--overlap 0 leaves chunks without a past to go on from; give 1 or 5.")
    try:
        return Window(frames, overlap)
    except RolloutError as error:
        raise InputError(f"--chunk-frames {frames} --overlap {overlap}: {error}") from error


def _captioner(name: str) -> str:
    return name if name in CAPTIONER_NAMES else str(Path(name).expanduser().resolve())


def worldwarp_settings(
    request: GenerateRequest, model: ModelFolder, window: Window
) -> dict[str, Any]:
    """What a new rollout keeps."""
    usual = model.defaults.worldwarp
    return {
        "steps": list(request.steps or (usual.steps,)),
        "guidance": usual.guidance_scale if request.guidance is None else request.guidance,
        "blend_chunks": request.blend_chunks,
        "chunk_frames": window.frames,
        "overlap": window.overlap,
        "strength": usual.strength if request.strength is None else request.strength,
        "erosion": usual.erosion,
        "shift": usual.shift,
        **({} if request.caption is None else {"captioner": _captioner(request.caption)}),
        **({} if request.noise_field in (None, "both") else {"noise_field": request.noise_field}),
    } | {f"warp.{name}": value for name, value in model.defaults.warp.items()}
