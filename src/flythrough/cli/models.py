"""``flythrough models``: what models there are, fetch them, check them, convert pickled weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from flythrough.cli.output import emit, note

if TYPE_CHECKING:
    from flythrough.models.checking import PartReport
    from flythrough.models.hub import Local
    from flythrough.models.published import Entry

app = App(name="models", help="List, fetch, check and convert models.")

_WIDTH = 100
_MORE = " " * 4
_SHOWN = 4


@app.command(name="list")
def list_models() -> None:
    """Every model known by name: licence, size, revision, and whether it is on this machine."""
    from flythrough.models.hub import find_local
    from flythrough.models.published import ENTRIES

    rows = [_facts(entry, find_local(entry)) for entry in ENTRIES.values()]
    heads = [("name", "size", "revision", "licence")]
    for row, entry in zip(rows, ENTRIES.values(), strict=True):
        heads.append((entry.name, _size(row["size"]), entry.pinned, entry.licence))
    widths = [max(map(len, column)) for column in zip(*heads, strict=True)]
    lines = ["  ".join(map(str.ljust, head, widths)).rstrip() for head in heads]
    texts = lines[:1]
    for row, line in zip(rows, lines[1:], strict=True):
        texts.append(line)
        for text in (f"  {row['what']}", f"  on this machine: {_place(row)}"):
            texts += _within(text)
    emit({"models": rows}, "\n".join(texts))


@app.command
def pull(
    name: str,
    /,
    *,
    to: Annotated[
        Path | None, Parameter(help="Folder for the files (default: the hub's cache).")
    ] = None,
) -> None:
    """Fetch a published model; run again to continue a download that broke off.

    Example: flythrough models pull helios-distilled --to models/helios-distilled
    """
    from flythrough.models.hub import pull as fetch
    from flythrough.models.published import entry_named

    entry = entry_named(name)
    if not entry.bundled and entry.repository is not None:
        size = "" if entry.size is None else f", {_size(entry.size)}"
        note(f"{entry.name}: {entry.licence}, revision {entry.pinned}{size}")
    local = fetch(entry, to)
    emit(
        {"name": name, "path": str(local.path), "revision": local.revision, "size": local.size()},
        f"{name}: {_size(local.size())} in {local.path}",
    )


@app.command
def check(name_or_folder: str, /) -> None:
    """Check that a model's files are all there and that its tensors fit, without loading them.

    The exit status is 2 when something is wrong.
    """
    from flythrough.errors import WeightsError
    from flythrough.models.checking import check_model

    report = check_model(name_or_folder)
    parts = [{**vars(part), "good": part.good} for part in report.parts]
    lines = [line for part in report.parts for line in _lines(part)]
    emit(
        {"name": report.name, "path": str(report.path), "good": report.good, "parts": parts},
        "\n".join(lines),
    )
    if not report.good:
        bad = ", ".join(part.part for part in report.parts if not part.good)
        raise WeightsError(
            f"{report.path} does not hold what it should ({bad}: see above); fetch it again."
        )


@app.command
def convert(
    file: Path,
    /,
    *,
    output: Annotated[
        Path | None,
        Parameter(name=["--output", "-o"], help="File to write (default: beside FILE)."),
    ] = None,
    key: Annotated[
        str | None, Parameter(help="Entry that holds the tensors, if there are several.")
    ] = None,
) -> None:
    """Turn pickled weights into safetensors; tensors only, no code of the file is run.

    Example: flythrough models convert weights.pt -o weights.safetensors
    """
    from flythrough.models.converting import convert as rewrite

    made = rewrite(file, output, key)
    if made.left_out:
        note(f"taken from {made.wrapper!r}; left out: {', '.join(made.left_out)}")
    if made.separated:
        note(f"{len(made.separated)} tensors shared memory and were written separately")
    emit(
        {**vars(made), "output": str(made.output)},
        f"{made.output}: {made.tensors} tensors, {_size(made.bytes)}",
    )


def _facts(entry: Entry, local: Local | None) -> dict[str, object]:
    return {
        "name": entry.name,
        "what": entry.what,
        "kind": entry.kind,
        "licence": entry.licence,
        "commercial": entry.commercial,
        "parts": _parts(entry, local),
        "source": f"https://huggingface.co/{entry.repository}" if entry.repository else entry.page,
        "revision": entry.revision,
        "size": local.size() if local and local.complete else entry.size,
        "present": bool(local and local.complete),
        "path": str(local.path) if local else None,
        "local_revision": local.revision if local else None,
    }


def _parts(entry: Entry, local: Local | None) -> list[str]:
    """Those of the entry, and the denoiser of WorldWarp where the bundled folder has one."""
    more = local is not None and entry.bundled and (local.path / "st_diff").is_dir()
    return [*entry.parts, *(("st_diff",) if more else ())]


def _place(row: dict[str, object]) -> str:
    if row["path"] is None:
        return "no"
    if not row["present"]:
        return f"in part: {row['path']}"
    differs = row["revision"] and row["local_revision"] != row["revision"]
    return f"{'another revision: ' if differs else ''}{row['path']}"


def _lines(part: PartReport) -> list[str]:
    stored = ""
    if part.tensors:
        dtypes = ", ".join(part.dtypes)
        stored = f", {part.tensors} tensors, {_count(part.numbers)} numbers ({dtypes})"
    lines = [f"{'ok  ' if part.good else 'FAIL'} {part.part}: {part.kind or '-'}{stored}"]
    for what, names in (
        ("missing", part.missing),
        ("unexpected", part.unexpected),
        ("does not fit", part.misshaped),
        ("wrong", part.faults),
    ):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            lines.append(f"     {what}: {', '.join(names[:_SHOWN])}{more}")
    return lines


def _count(number: int) -> str:
    if number >= 1e9:
        return f"{number / 1e9:.3f} B"
    return f"{number / 1e6:.1f} M" if number >= 1e5 else str(number)


def _size(size: object) -> str:
    if not isinstance(size, int):
        return "unknown"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _within(text: str) -> list[str]:
    """``text`` in lines that fit the width; a long path goes on after one of its slashes."""
    lines = []
    while len(text) > _WIDTH:
        cut = max(text.rfind(mark, len(_MORE) + 1, _WIDTH) for mark in " /") + 1 or _WIDTH
        lines.append(text[:cut].rstrip())
        text = _MORE + text[cut:]
    return [*lines, text]
