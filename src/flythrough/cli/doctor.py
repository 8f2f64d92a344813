"""``flythrough doctor``: what this machine has, what the model needs, what to expect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from flythrough.cli.hardware import CodecDevice, GeometryDevice, Gpus, Graphs
from flythrough.cli.output import emit
from flythrough.engine.words import MemoryChoice, Precision, parse_size

if TYPE_CHECKING:
    from flythrough.engine.intent import Row


def doctor(  # noqa: PLR0913 - the command line
    *,
    model: Annotated[
        str, Parameter(help="'nano', a published model (also before it is pulled), or a folder.")
    ] = "nano",
    size: Annotated[str | None, Parameter(help="HEIGHTxWIDTH; default: the model's.")] = None,
    frames: Annotated[int, Parameter(help="Frames of the planned run.")] = 66,
    method: Annotated[
        Literal["warp-as-history", "helios", "worldwarp"] | None,
        Parameter(help="Default: the model's method with a camera."),
    ] = None,
    device: Annotated[str, Parameter(help="auto, cpu, cuda or cuda:N.")] = "auto",
    memory: Annotated[
        MemoryChoice,
        Parameter(help="Where weights lie; auto takes the first that fits."),
    ] = "auto",
    geometry: Annotated[
        str,
        Parameter(help="'default', 'flat', a depth network (also before it is pulled), or a file."),
    ] = "default",
    lora: Annotated[str, Parameter(help="'default', 'off', or an adapter to count.")] = "default",
    caption: Annotated[
        str | None,
        Parameter(help="Count a captioner, by name or folder, as generate takes it."),
    ] = None,
    precision: Annotated[
        Precision,
        Parameter(help="fp8 and fp8-all: the denoiser's large weights take half the memory."),
    ] = "full",
    gpus: Gpus = 1,
    graphs: Graphs = None,
    geometry_device: GeometryDevice = None,
    codec_device: CodecDevice = None,
    card: Annotated[
        float | None,
        Parameter(help="Plan for GPUs of so many GB that need not be here, like 24."),
    ] = None,
) -> None:
    """Check packages, devices and the model, and foretell memory, disk and time of a run.

    Nothing is loaded or downloaded: networks are run on shapes alone, those of Helios and published
    depth networks also before they are on this machine. The exit status is 1 when something is not
    good enough.
    """
    from flythrough.engine.doctor import examine
    from flythrough.engine.hardware import Hardware
    from flythrough.engine.intent import Intent
    from flythrough.errors import FaultError

    intent = Intent(
        model=model,
        size=parse_size(size),
        frames=frames,
        method=method,
        device=device,
        memory=memory,
        geometry=geometry,
        lora=lora,
        caption=caption,
        precision=precision,
        hardware=Hardware(gpus, geometry_device, codec_device, graphs),
        card=card,
    )
    report = examine(intent)
    lines = [f"{_mark(row)} {row.name}: {row.found}" for row in report.rows]
    verdict = "ready" if report.good else "not ready: see the lines marked FAIL"
    if card is not None:
        verdict = "it fits" if report.good else "it does not fit: see the lines marked FAIL"
    elif report.good and report.to_fetch:
        pulls = "; ".join(f"flythrough models pull {name}" for name in report.to_fetch)
        verdict = f"ready once {'it is' if len(report.to_fetch) == 1 else 'they are'} here: {pulls}"
    numbers = {row.name: row.data for row in report.rows if row.data}
    emit(
        {
            "ready": report.good,
            "to_fetch": report.to_fetch,
            **{row.name: row.found for row in report.rows},
            "numbers": numbers,
        },
        "\n".join([*lines, verdict]),
    )
    if not report.good:
        bad = ", ".join(row.name for row in report.rows if not row.good)
        if card is not None:
            raise FaultError(
                f"The run does not fit GPUs of {card:g} GB as it was asked for ({bad}); see the "
                "lines marked FAIL."
            )
        raise FaultError(f"This machine is not ready ({bad}); see the lines marked FAIL.")


def _mark(row: Row) -> str:
    """Before a finding: good, one of several choices that is out, or a fault."""
    if not row.good:
        return "FAIL"
    return "no  " if row.data.get("fits") is False else "ok  "
