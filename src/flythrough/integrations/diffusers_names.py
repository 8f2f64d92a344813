"""Flythrough behind the argument names of diffusers' Helios pipelines.

A program written for ``diffusers.HeliosPipeline`` or ``HeliosPyramidPipeline`` runs when these are
imported from here; both names mean one class, since the model says how many stages it has. Size,
guidance and steps are the model's own where they are left out. What cannot be honoured is refused.
Importing this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from flythrough.engine.files import check_lora
from flythrough.engine.live import Camera
from flythrough.engine.pipeline import Callback, Clip, Pipeline, load
from flythrough.errors import InputError
from flythrough.integrations.unsupported import check_fixed, shown
from flythrough.media.in_memory import Picture
from flythrough.models.catalog import ModelDefaults, find_model
from flythrough.models.published import ENTRIES
from flythrough.rollout.spec import Anchor

if TYPE_CHECKING:
    import torch
    from diffusers.pipelines.helios.pipeline_output import HeliosPipelineOutput
    from torch import Tensor

    from flythrough.sampling.pyramid import AfterStep

StepEnd = Callable[["HeliosPipeline", int, "Tensor", dict[str, "Tensor"]], Mapping[str, "Tensor"]]
"""(pipeline, step, timestep, tensors by name) -> tensors to go on with, as diffusers calls it."""
OutputType = Literal["np", "pil", "pt", "latent"]
_OUTPUT_TYPES = ("np", "pil", "pt", "latent")
_DEFAULT_ADAPTER = "default_0"


class HeliosPipeline:
    """A :class:`flythrough.Pipeline` that answers to diffusers' names.

    One adapter at a time can be loaded. Without a camera it works in every stage; with one it takes
    the place of the model's camera adapter.
    """

    def __init__(self, pipeline: Pipeline, torch_dtype: torch.dtype | None = None) -> None:
        self._pipeline, self._dtype = pipeline, torch_dtype
        self._adapter: str | None = None

    @classmethod
    def from_pretrained(
        cls, path: str | Path, torch_dtype: torch.dtype | None = None, **components: Any
    ) -> Self:
        """A pipeline over a folder, a name, or the hub's name of a published model.

        Weights load on the first call, on the GPU if there is one. ``vae`` may be the model's own
        in float32, which is what is used anyway.

        Raises:
            InputError: a component that would be another than the model's own, or a model that is
                no Helios.
            WeightsError: the model is not on this machine.
        """
        for name, part in components.items():
            if not (name == "vae" and _is_own_codec(part, path)):
                raise InputError(
                    f"{name}={shown(part)} cannot be honoured: all parts come from {path}; leave "
                    "it out, or put it into that folder."
                )
        names = {entry.repository: entry.name for entry in ENTRIES.values() if entry.repository}
        pipeline = load(names.get(str(path), path))
        if not find_model(pipeline.model).is_helios:
            raise InputError(
                f"The model {path} is an ST-Diff, which no Helios pipeline can run; call "
                "flythrough.load on it, or give a folder whose transformer is a Helios."
            )
        return cls(pipeline, torch_dtype)

    def to(self, device: str | torch.device) -> Self:
        """Run on ``device``; weights that were loaded elsewhere load again.

        Raises:
            InputError: there is no such device.
        """
        from flythrough.engine.build import pick_device

        name = str(device)
        pick_device(name)
        before = self._pipeline
        if name != before.device:
            self._pipeline = Pipeline(
                before.model,
                name,
                before.geometry,
                before.lora,
                before.lora_scale,
                before.memory,
                before.compute,
                before.hardware,
                before.codec_precision,
            )
        return self

    def load_lora_weights(
        self, path: str | Path, adapter_name: str | None = None, weight_name: str | None = None
    ) -> None:
        """Use a LoRA from now on: a .safetensors file, or a folder as PEFT or diffusers write it;
        ``weight_name`` is the file in that folder.

        Raises:
            InputError: an adapter is loaded already, or tensors were given instead of a path.
            WeightsError: no such file, or it holds no LoRA.
        """
        if not isinstance(path, str | Path):
            raise InputError(f"A LoRA was given as {shown(path)}; give the path of its file.")
        if self._adapter is not None:
            raise InputError(
                f"The adapter {self._adapter!r} is loaded and one at a time can be; call "
                "unload_lora_weights() first."
            )
        file = Path(path).resolve() if weight_name is None else Path(path).resolve() / weight_name
        check_lora(str(file))
        self._adapter = _DEFAULT_ADAPTER if adapter_name is None else adapter_name
        self._pipeline.lora, self._pipeline.lora_scale = str(file), 1.0

    def set_adapters(
        self,
        adapter_names: str | Sequence[str],
        adapter_weights: float | Sequence[float] | None = None,
    ) -> None:
        """Let the loaded adapter count ``adapter_weights`` times, in [-4, 4]; 1 if None.

        Raises:
            InputError: another name than that of the loaded adapter, or a weight out of range.
        """
        name = _single("adapter_names", adapter_names)
        if self._adapter is None or name != self._adapter:
            raise InputError(
                f"There is no adapter {name!r} (loaded: {self._adapter}); load it with "
                "load_lora_weights(path, adapter_name) first."
            )
        given = _single("adapter_weights", adapter_weights)
        weight = 1.0 if given is None else given
        if not isinstance(weight, int | float) or weight == 0 or not -4 <= weight <= 4:
            raise InputError(
                f"adapter_weights={shown(weight)} is out of range; give a number from -4 to 4, or "
                "call unload_lora_weights() for none."
            )
        self._pipeline.lora_scale = float(weight)

    def unload_lora_weights(self) -> None:
        """Forget the adapter; frames are again those of a pipeline that never had one."""
        self._adapter = None
        self._pipeline.lora, self._pipeline.lora_scale = "default", 1.0

    def __call__(  # noqa: PLR0913 - the names of diffusers
        self,
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int = 132,
        *,
        num_inference_steps: int | None = None,
        pyramid_num_inference_steps_list: Sequence[int] | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        seed: int | None = None,
        image: str | Path | Picture | list[Picture] | None = None,
        video: str | Path | Sequence[Picture | str | Path] | np.ndarray | None = None,
        camera: Camera | None = None,
        keep_first_frame: bool = True,
        is_skip_first_chunk: bool = False,
        output_type: OutputType = "np",
        return_dict: bool = True,
        callback: Callback | None = None,
        callback_on_step_end: StepEnd | None = None,
        **fixed: Any,
    ) -> HeliosPipelineOutput | tuple[Any]:
        """Make a video of ``num_frames`` frames.

        Args:
            num_inference_steps: of a model without pyramid (Base).
            pyramid_num_inference_steps_list: for each stage of a pyramid model.
            generator: gives the seed it was made with; its state is not used and does not move.
            seed: instead of a generator, in [0, 2**63); 0 if neither is given.
            image: a path, a PIL picture, or an array [H,W,3] of uint8 or of floats in [0,1].
            video: a clip to continue: a path, a list of pictures, or an array [T,H,W,3].
            camera: a path for the camera, from ``image`` on (path language, file, trajectory).
            keep_first_frame, is_skip_first_chunk: the anchor ``none`` or ``second``.
            output_type: see below.
            callback: called with chunk, label and finished share of the chunk.
            callback_on_step_end: called after every step with the pipeline, the step within its
                stage, the timestep [1], and ``{"latents": float32 [1,16,9,h,w]}`` of the stage's
                size; latents in the mapping that it returns take their place.
            fixed: further arguments of diffusers (``integrations.unsupported``).

        Returns:
            An object with ``frames``, or a tuple of it: for ``np`` float32 [1,F,H,W,3] in [0,1],
            for ``pt`` a float32 tensor [1,F,3,H,W] in [0,1], for ``pil`` a list with one list of
            pictures, all from 8-bit frames; for ``latent`` a float32 tensor [1,16,9*chunks,h,w] of
            whole chunks, normalised as the denoiser sees them.

        Raises:
            InputError: an argument that is wrong or cannot be honoured, before a model is loaded.
        """
        own = find_model(self._pipeline.model).defaults
        check_fixed(fixed, own)
        if output_type not in _OUTPUT_TYPES:
            raise InputError(
                f"output_type={shown(output_type)} is unknown; use {', '.join(_OUTPUT_TYPES)}."
            )
        anchor = _anchor(keep_first_frame, is_skip_first_chunk)
        steps = _steps(num_inference_steps, pyramid_num_inference_steps_list, own)
        self._check_dtype()
        clip = self._pipeline(
            _single("image", image),
            camera=camera,
            video=video,
            prompt=_single("prompt", prompt) or "",
            negative_prompt=_single("negative_prompt", negative_prompt) or "",
            frames=num_frames,
            seed=_seed(generator, seed),
            size=(own.height if height is None else height, own.width if width is None else width),
            steps=steps,
            guidance=guidance_scale,
            anchor=anchor,
            callback=callback,
            after_step=self._after_step(callback_on_step_end),
        )
        frames = _frames(clip, output_type)
        if not return_dict:
            return (frames,)
        from diffusers.pipelines.helios.pipeline_output import HeliosPipelineOutput

        return HeliosPipelineOutput(frames=frames)

    def _after_step(self, told: StepEnd | None) -> AfterStep | None:
        """``told`` in the form that the sampler calls."""
        if told is None:
            return None
        wanted = getattr(told, "tensor_inputs", ["latents"])
        if not callable(told) or not set(wanted) <= {"latents"}:
            raise InputError(
                f"callback_on_step_end={shown(told)} cannot be honoured: it must be a function of "
                "pipeline, step, timestep and a mapping with latents alone; give such a one."
            )

        def after_step(step: int, timestep: Tensor, latents: Tensor) -> Tensor:
            given = told(self, step, timestep, {"latents": latents})
            found = given.get("latents", latents) if isinstance(given, Mapping) else None
            if getattr(found, "shape", None) != latents.shape:
                raise InputError(
                    f"callback_on_step_end returned {shown(given)}; return its mapping, with "
                    f"latents of shape {list(latents.shape)} or none."
                )
            return found.to(latents)

        return after_step

    def _check_dtype(self) -> None:
        if self._dtype is None:
            return
        from flythrough.engine.build import pick_device, pick_dtype

        device = pick_device(self._pipeline.device)
        if self._dtype != pick_dtype(device):
            raise InputError(
                f"torch_dtype={self._dtype} cannot be honoured: on {device.type} the model runs in "
                f"{pick_dtype(device)}; give that or leave it out."
            )


HeliosPyramidPipeline = HeliosPipeline


def _single(name: str, value: Any) -> Any:
    """The one element of a list, as diffusers allows it."""
    if not isinstance(value, list | tuple):
        return value
    if len(value) != 1:
        raise InputError(f"{name} is a list of {len(value)}, but one call makes one video; give 1.")
    return value[0]


def _seed(generator: Any, seed: int | None) -> int:
    generator = _single("generator", generator)
    if generator is None:
        return 0 if seed is None else seed
    if seed is not None:
        raise InputError(f"generator and seed={seed} were both given; keep one.")
    if not hasattr(generator, "initial_seed"):
        raise InputError(f"generator={shown(generator)} is no torch.Generator; give one, or seed.")
    return int(generator.initial_seed())


def _anchor(keep_first_frame: bool, is_skip_first_chunk: bool) -> Anchor:
    if is_skip_first_chunk and not keep_first_frame:
        raise InputError(
            "is_skip_first_chunk=True has no effect with keep_first_frame=False; drop one of them."
        )
    if not keep_first_frame:
        return "none"
    return "second" if is_skip_first_chunk else "first"


def _steps(
    single: int | None, pyramid: Sequence[int] | None, own: ModelDefaults
) -> tuple[int, ...] | None:
    if single is None:
        return None if pyramid is None else tuple(pyramid)
    if pyramid is not None:
        raise InputError(
            f"num_inference_steps={single} and pyramid_num_inference_steps_list={shown(pyramid)} "
            "were both given; keep one."
        )
    if len(own.steps) > 1:
        raise InputError(
            f"num_inference_steps={single} cannot be honoured: the model has {len(own.steps)} "
            f"pyramid stages; give pyramid_num_inference_steps_list, like {list(own.steps)}."
        )
    return (single,)


def _is_own_codec(part: Any, path: str | Path) -> bool:
    source = getattr(getattr(part, "config", None), "_name_or_path", None)
    return source == str(path) and str(getattr(part, "dtype", "")) == "torch.float32"


def _frames(clip: Clip, output_type: OutputType) -> Any:
    if output_type == "pil":
        from PIL import Image

        return [[Image.fromarray(frame) for frame in clip.frames]]
    scaled = clip.frames.astype(np.float32)[None] / 255
    if output_type == "np":
        return scaled
    import torch

    if output_type == "pt":
        return torch.from_numpy(scaled).permute(0, 1, 4, 2, 3).contiguous()
    latents = np.concatenate([chunk.latents for chunk in clip.rollout.chunks], axis=1)
    return torch.from_numpy(latents)[None]
