"""Which placement a run gets, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flythrough.engine.build import build_spec
from flythrough.engine.doctor_plan import _parts
from flythrough.engine.hardware import Hardware
from flythrough.engine.intent import Intent
from flythrough.engine.memory_plan import PLACEMENTS, RunNeeds
from flythrough.engine.options import check_memory
from flythrough.engine.placement import (
    Room,
    check_other_devices,
    check_stays,
    choose_placement,
    recording_for,
)
from flythrough.engine.request import GenerateRequest, check
from flythrough.engine.run_needs import RunParts, default_parts, parts_of, run_needs
from flythrough.engine.words import Compute, MemoryChoice
from flythrough.errors import InputError
from flythrough.models.accounting import Need, weight_bytes
from flythrough.models.catalog import find_model
from flythrough.models.codec import VideoCodec, save_codec
from flythrough.models.fast.fp8 import quantise_blocks, saved_bytes
from flythrough.models.headers import read_header
from flythrough.models.loading import load_transformer
from flythrough.models.needs import ModelNeeds, PartNeed, streaming_need
from flythrough.models.taehv import TAEHV
from flythrough.models.taehv_config import TAEHVConfig
from flythrough.models.ttt3r import TTT3R
from flythrough.models.ttt3r_config import TINY
from flythrough.models.ttt3r_files import save_ttt3r
from flythrough.models.ttt3r_folder import find_streaming
from flythrough.scene.splat_fit import fit_bytes
from throwaway import SIZE

GIB = 2**30


def needs(device: str = "cuda") -> RunNeeds:
    """A denoiser of 20 GiB, a text encoder of 10, a codec of 1; 4 GiB of activations."""
    return RunNeeds(
        weights={
            "transformer": PartNeed(20 * GIB, GIB),
            "text_encoder": PartNeed(10 * GIB, 2 * GIB),
            "vae": PartNeed(GIB, GIB // 4),
        },
        text=Need(0, 1e12),
        encode=Need(2 * GIB, 1e12),
        warp=Need(0, 0.0),
        denoise=Need(GIB, 1e14),
        decode=Need(4 * GIB, 1e12),
        frames=66,
        size=(384, 640),
        device=device,
        calls=6,
    )


@pytest.mark.parametrize(
    ("free", "placement", "peak"),
    [(80, "resident", 35), (35, "drop-text", 25), (24, "offload", 5), (6, "offload", 5)],
)
def test_auto_takes_the_first_that_fits(free: int, placement: str, peak: int) -> None:
    plan = choose_placement(needs(), "auto", free * GIB, 100 * GIB, "cuda:0")
    assert plan.placement == placement
    assert plan.device_bytes == pytest.approx(peak * GIB, abs=GIB // 8)


def test_what_cannot_fit_is_refused_with_its_figures() -> None:
    with pytest.raises(
        InputError, match=r"5\.2 GiB on cuda:0 .*, but 4\.0 GiB are free; use a small"
    ):
        choose_placement(needs(), "auto", 4 * GIB, 100 * GIB, "cuda:0")
    with pytest.raises(InputError, match="use --memory auto"):
        choose_placement(needs(), "resident", 30 * GIB, 100 * GIB, "cuda:0")


def test_weights_that_wait_need_host_memory() -> None:
    with pytest.raises(InputError, match=r"needs 35\.0 GiB of host memory, but 16\.0 GiB"):
        choose_placement(needs(), "auto", 8 * GIB, 16 * GIB, "cuda:0")


def test_a_cpu_streams_nothing() -> None:
    plan = choose_placement(needs("cpu"), "auto", 33 * GIB, 33 * GIB, "the host")
    assert plan.placement == "drop-text"
    assert plan.host_bytes == 0


def test_8_bits_are_made_on_the_way_from_host_memory() -> None:
    """The whole denoiser lies there first; layers that are streamed have no 8-bit form."""
    eight = replace(needs(), copied_bytes=36 * GIB, eight_bits=True)
    plan = choose_placement(eight, "auto", 30 * GIB, 64 * GIB, "cuda:0")
    assert plan.placement == "drop-text"
    assert plan.host_bytes == (4 + 36) * GIB
    with pytest.raises(InputError, match=r"25\.8 GiB on cuda:0 \(with 3% for gaps\), but 8\.0"):
        choose_placement(eight, "auto", 8 * GIB, 100 * GIB, "cuda:0")
    with pytest.raises(InputError, match="offload streams layers in full precision; drop it"):
        choose_placement(eight, "offload", 8 * GIB, 100 * GIB, "cuda:0")
    with pytest.raises(InputError, match=r"40\.0 GiB of host memory.*programs or drop --precision"):
        choose_placement(eight, "auto", 30 * GIB, 20 * GIB, "cuda:0")


def test_8_bits_are_foretold(tiny_model: Path) -> None:
    """What a loaded denoiser weighs after it was quantised, and that no more is on the device."""
    folder = find_model(str(tiny_model))
    net = load_transformer(folder.path / "transformer", torch.bfloat16)
    whole = weight_bytes(net)
    assert saved_bytes(net.blocks) > 0
    quantise_blocks(net.blocks, torch.device("cpu"))
    assert saved_bytes(net.blocks) == 0
    parts = RunParts(eight_bits=True)
    found = run_needs(folder, (64, 128), "helios", 33, "cuda", parts=parts)
    assert found.weights["transformer"].whole == weight_bytes(net) < whole


def test_weights_that_are_converted_lie_in_host_memory(tiny_model: Path, tmp_path: Path) -> None:
    """Those stored in the run's own type stay pages of their file."""
    wide = tmp_path / "wide"
    shutil.copytree(tiny_model, wide)
    net = load_transformer(tiny_model / "transformer", torch.float32)
    shutil.rmtree(wide / "transformer")
    net.save_pretrained(wide / "transformer")
    numbers = sum(parameter.numel() for parameter in net.parameters())
    parts = RunParts(eight_bits=True)
    for model, device, read in (
        (tiny_model, "cuda", 0),
        (wide, "cuda", 2 * numbers),
        (wide, "cpu", 0),
    ):
        found = run_needs(find_model(str(model)), (64, 128), "helios", 33, device, parts=parts)
        assert found.copied_bytes == read
        assert found.placements == PLACEMENTS[:2]


def test_decoding_beside_needs_room_for_both() -> None:
    """Resident weights and the activations of denoising and decoding; nothing where weights come
    and go or a CPU works."""
    plans = {name: needs().plan(name) for name in PLACEMENTS}
    assert plans["resident"].beside_bytes == pytest.approx(36 * GIB, abs=GIB // 8)
    assert plans["resident"].fits_beside(38 * GIB)
    assert not plans["resident"].fits_beside(36 * GIB)
    assert plans["drop-text"].beside_bytes == pytest.approx(26 * GIB, abs=GIB // 8)
    assert not plans["offload"].fits_beside(80 * GIB)
    assert not needs("cpu").plan("resident").fits_beside(80 * GIB)


def test_recordings_take_memory_for_a_call() -> None:
    """On every GPU that denoises, whatever the phase; on one that only decodes, none."""
    run = needs()
    recorded = replace(run, graph_bytes=run.denoise.peak_bytes)
    for name in PLACEMENTS[:2]:
        plan, more = run.plan(name), recorded.plan(name)
        assert more.device_bytes == plan.device_bytes + GIB
        assert more.beside_bytes == plan.beside_bytes + GIB
    assert recorded.alone(["denoiser"], "cuda") == run.alone(["denoiser"], "cuda") + GIB
    assert recorded.alone(["codec"], "cuda") == run.alone(["codec"], "cuda")


# Of needs(): resident takes 35 GiB (36 with decoding beside denoising), drop-text 25 (26), the
# denoiser alone 21; recorded calls one more. All of it times the slack.
@pytest.mark.parametrize(
    ("hardware", "compute", "asked", "own", "other", "recorded"),
    [
        (Hardware(2), "auto", "auto", 48, 48, True),
        (Hardware(2), "fp8", "auto", 48, 48, True),
        (Hardware(2), "auto", "auto", 36.5, 48, False),  # resident gives way to drop-text
        (Hardware(2), "auto", "auto", 37.8, 48, False),  # no decoding beside any more
        (Hardware(2), "auto", "auto", 35, 48, True),  # drop-text with and without
        (Hardware(2), "auto", "resident", 36.5, 48, False),
        (Hardware(2), "auto", "drop-text", 36.5, 48, True),
        (Hardware(2), "auto", "auto", 48, 22, False),
        (Hardware(2), "auto", "auto", 20, 48, False),  # the run does not fit
        (Hardware(2, None, "cuda:1"), "auto", "auto", 48, 48, True),
        (Hardware(2, None, "cuda:1"), "auto", "auto", 48, 26, False),
        (Hardware(2), "compiled", "auto", 48, 48, False),
        (Hardware(2, graphs=False), "auto", "auto", 48, 48, False),
        (Hardware(2, graphs=True), "auto", "auto", 20, 20, True),
        (Hardware(), "auto", "auto", 48, 48, False),
    ],
)
def test_calls_are_recorded_where_there_is_room(
    hardware: Hardware,
    compute: Compute,
    asked: MemoryChoice,
    own: float,
    other: float,
    recorded: bool,
) -> None:
    first = torch.device("cuda", 0)
    room = Room(first, 100 * GIB, lambda at: int((own if at == first else other) * GIB))
    found = recording_for(needs(), hardware, compute, asked, room)
    assert found.records is recorded
    assert found.needs.graph_bytes == (GIB if recorded else 0)
    could = hardware.graphs is None and hardware.gpus > 1 and compute != "compiled"
    assert bool(found.why_not) is (could and not recorded)
    helps = own in (36.5, 37.8) and not recorded
    assert ("--memory drop-text would make room" in found.why_not) is helps
    if hardware.graphs is None:
        host, cpu = room._replace(device=torch.device("cpu")), needs("cpu")
        assert recording_for(cpu, hardware, compute, asked, host) == (cpu, False, "")


def test_what_was_asked_to_record_and_does_not_fit_says_so() -> None:
    recorded = replace(needs(), graph_bytes=GIB)
    with pytest.raises(InputError, match="drop --graphs, use --memory auto or another"):
        choose_placement(recorded, "resident", 36 * GIB, 100 * GIB, "cuda:0")
    plan = recorded.plan("offload")
    with pytest.raises(InputError, match="drop --graphs, use a smaller --size"):
        check_stays(plan, Hardware(2, graphs=True), 20 * GIB, "cuda:0", recorded)
    with pytest.raises(InputError, match="drop --graphs, use another device"):
        check_other_devices(recorded, Hardware(2, graphs=True), lambda _: 22 * GIB)


def test_time_grows_with_guidance_and_steps(tiny_model: Path) -> None:
    folder = find_model(str(tiny_model))
    plain = run_needs(folder, (64, 128), "helios", 33, "cpu", steps=(1, 1, 1))
    twice = run_needs(folder, (64, 128), "helios", 33, "cpu", steps=(2, 2, 2))
    guided = run_needs(folder, (64, 128), "helios", 33, "cpu", steps=(1, 1, 1), guidance=5.0)
    assert twice.denoise.flops == guided.denoise.flops == pytest.approx(2 * plain.denoise.flops)
    assert (plain.calls, twice.calls, guided.calls) == (3, 6, 6)
    larger = run_needs(folder, (128, 128), "helios", 33, "cpu")
    assert larger.decode.peak_bytes > 1.5 * plain.decode.peak_bytes


def test_a_camera_costs_history_tokens(tiny_model: Path) -> None:
    folder = find_model(str(tiny_model))
    free = run_needs(folder, (64, 128), "helios", 33, "cpu")
    led = run_needs(folder, (64, 128), "warp-as-history", 33, "cpu")
    assert led.denoise.flops > free.denoise.flops
    assert led.warp.peak_bytes > 0 == free.warp.peak_bytes
    assert "geometry" in led.weights
    assert "geometry" not in free.weights


def test_a_depth_network_counts_in_place_of_the_models_own(
    tiny_model: Path, tiny_depth: dict[str, Path]
) -> None:
    folder = find_model(str(tiny_model))

    def measured(geometry: str) -> RunNeeds:
        return run_needs(folder, SIZE, "warp-as-history", 33, "cpu", geometry=geometry)

    own, other = measured("default"), measured(str(tiny_depth["depth-pro"]))
    stored = read_header(tiny_depth["depth-pro"] / "model.safetensors").values()
    assert other.weights["geometry"].whole == sum(4 * tensor.count for tensor in stored)
    assert other.warp.flops > own.warp.flops
    assert "geometry" in own.weights
    assert "geometry" not in measured("flat").weights


def test_adapters_lie_beside_the_denoiser(tiny_model: Path) -> None:
    folder = find_model(str(tiny_model))
    assert folder.camera_lora is not None

    def transformer(*adapters: Path) -> PartNeed:
        parts = RunParts(adapters)
        found = run_needs(folder, SIZE, "warp-as-history", 33, "cuda", parts=parts)
        return found.weights["transformer"]

    stored = sum(tensor.count for tensor in read_header(folder.camera_lora).values())
    bare, one = transformer(), transformer(folder.camera_lora)
    assert one.whole - bare.whole == 2 * stored  # bfloat16
    assert transformer(folder.camera_lora, folder.camera_lora).whole - one.whole == 2 * stored
    shipped = run_needs(folder, SIZE, "warp-as-history", 33, "cuda").weights["transformer"]
    assert shipped == one
    free = run_needs(folder, SIZE, "helios", 33, "cuda").weights["transformer"]
    assert free == bare


def test_geometry_at_work_counts(tiny_model: Path) -> None:
    needs = ModelNeeds(tiny_model, "cpu", torch.float32)
    one, three = (needs.geometry((256, 256), views) for views in (1, 3))
    less = needs.geometry((256, 256), 1, 2_000)
    assert less.peak_bytes < one.peak_bytes < three.peak_bytes
    assert less.flops < one.flops < three.flops
    folder = find_model(str(tiny_model))
    led = run_needs(folder, SIZE, "warp-as-history", 33, "cpu")
    assert led.warp.flops == needs.geometry(SIZE, 1).flops
    assert led.warp.peak_bytes >= needs.geometry(SIZE, 1).peak_bytes


def test_what_a_rollout_names_is_planned_for(tiny_model: Path, photo: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    small = VideoCodec(TAEHV(TAEHVConfig(encoder_width=4, decoder_widths=(8, 4, 4, 4))))
    save_codec(small, model / "taehv")
    own = model / "lora" / "camera.safetensors"
    request = GenerateRequest(
        image=photo, camera="static", model=str(model), frames=33, preset="realtime", style_lora=own
    )
    folder = find_model(str(model))
    text = "estimation=joint,older_keyframes=3"
    spec = build_spec(check(replace(request, warp_settings=text)))
    parts = parts_of(spec, folder)
    assert parts == RunParts((own, own), model / "taehv", 130_000, views=5)
    usual = run_needs(folder, SIZE, "warp-as-history", 33, "cpu")
    named = run_needs(folder, SIZE, "warp-as-history", 33, "cpu", parts=parts)
    assert named.weights["vae"].whole < usual.weights["vae"].whole
    assert named.decode.flops < usual.decode.flops
    (model / "taehv" / "config.json").unlink()
    file = parts_of(spec, find_model(str(model)))
    again = run_needs(folder, SIZE, "warp-as-history", 33, "cpu", parts=file)
    assert again.weights["vae"] == named.weights["vae"]


def test_the_cheaper_band_costs_less(tiny_model: Path) -> None:
    folder = find_model(str(tiny_model))
    short = run_needs(folder, (64, 128), "warp-as-history", 33, "cpu")
    mid = run_needs(folder, (64, 128), "warp-as-history", 33, "cpu", band="patch_mid")
    assert mid.denoise.flops < short.denoise.flops


def test_a_word_that_is_no_choice_is_refused() -> None:
    with pytest.raises(InputError, match="--memory little is unknown"):
        check_memory("little", "cpu")  # type: ignore[arg-type]


def test_gaussians_are_planned_for(
    tiny_model: Path, tiny_st_diff: Path, photo: Path, tmp_path: Path
) -> None:
    request = GenerateRequest(image=photo, camera="static", model=str(tiny_model), frames=33)
    folder = find_model(str(tiny_model))
    peaks = []
    for scene, text in (("mesh", None), ("gaussian", None), ("gaussian", "older_keyframes=4")):
        spec = build_spec(check(replace(request, scene=scene, warp_settings=text)))
        parts = parts_of(spec, folder)
        size = (384, 640)
        peaks.append(run_needs(folder, size, spec.method, 33, "cuda", parts=parts).warp.peak_bytes)
    assert peaks[1] == fit_bytes((384, 640), 3) < peaks[2] == fit_bytes((384, 640), 6)
    assert peaks[0] != peaks[1]
    flat = replace(request, model=str(tiny_st_diff), geometry="flat", scene="gaussian")
    parts = parts_of(build_spec(check(flat)), find_model(str(tiny_st_diff)))
    assert parts.sources == 1  # the photo alone
    joint = replace(flat, geometry="default", scene=None, warp_settings="estimation=joint")
    assert parts_of(build_spec(check(joint)), find_model(str(tiny_st_diff))).views == 3
    own = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    stated = json.loads((own / "flythrough.json").read_text())
    stated["defaults"]["warp"] = {"memory": "gaussian"}
    (own / "flythrough.json").write_text(json.dumps(stated))
    assert default_parts(find_model(str(own)), "warp-as-history").sources == 3
    assert default_parts(find_model(str(own)), "helios").sources == 0


def test_a_streaming_network_of_the_models_own_is_measured(
    tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    shutil.rmtree(own / "geometry")
    save_ttt3r(TTT3R(TINY), own / "geometry")
    folder = find_model(str(own))
    found = run_needs(folder, SIZE, "warp-as-history", 33, "cpu")
    weights, look = streaming_need(find_streaming(own / "geometry"), SIZE)
    assert found.weights["geometry"] == weights
    assert found.warp.flops == look.flops
    request = GenerateRequest(
        image=photo, camera="static", model=str(own), frames=33, preset="realtime"
    )
    checked = check(request)
    assert "geometry_pixel_limit" not in checked.settings
    assert "pixels" not in checked.notes[0]


@pytest.mark.parametrize("lora", ["default", "off"])
@pytest.mark.parametrize(
    ("geometry", "warp"),
    [
        ("default", {}),
        ("flat", {}),
        ("default", {"estimation": "joint", "older_keyframes": 4}),
        ("default", {"memory": "gaussian"}),
        ("flat", {"memory": "gaussian"}),
    ],
)
def test_doctor_plans_for_what_generate_runs(
    tiny_model: Path, photo: Path, tmp_path: Path, warp: dict[str, object], geometry: str, lora: str
) -> None:
    own = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    stated = json.loads((own / "flythrough.json").read_text())
    (own / "flythrough.json").write_text(json.dumps({**stated, "warp": warp}))
    named = {"model": str(own), "geometry": geometry, "lora": lora}
    spec = build_spec(check(GenerateRequest(image=photo, camera="static", frames=33, **named)))
    folder = find_model(str(own))
    assert _parts(Intent(**named), spec.method, folder) == parts_of(spec, folder)
