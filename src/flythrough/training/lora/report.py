"""Before and after: held-out loss, a sampled chunk without and with the adapter, one page."""

from __future__ import annotations

import base64
import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from flythrough.disk import replacing
from flythrough.training.lora.previews import write_loss_plot, write_rows
from flythrough.training.lora.sampling import Sampler
from flythrough.training.lora.settings import LoraPlan, stated
from flythrough.training.lora.task import CameraTask
from flythrough.training.run_folder import read_log

_STYLE = (
    "body{font:15px/1.5 sans-serif;color:#262b36;max-width:1180px;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:4px 12px;text-align:right;border-bottom:1px "
    "solid #e0e3e9}td:first-child,th:first-child{text-align:left}img{max-width:100%}"
)
_NOTES = (
    "Held-out loss: windows drawn apart from those of the steps, with noise that never changes. "
    "They overlap windows that were trained on, so this tells fit, not generality.",
    "PSNR: against the clip's own frames, on pixels that the warp shows.",
)


def write_report(
    plan: LoraPlan, task: CameraTask, sampler: Sampler, identity: dict[str, Any]
) -> dict[str, Any]:
    """Write loss.svg, report.json, report.png and report.html; returns the figures."""
    folder = plan.request.folder
    before, after = (task.heldout_loss(adapter=on) for on in (False, True))
    off, on = (sampler.chunk(adapter=active) for active in (False, True))
    truth, warp = sampler.rows()["truth"], sampler.rows()["warp"]
    log = read_log(folder / "log.jsonl")
    figures: dict[str, Any] = {
        "loss_before": before["total"],
        "loss_after": after["total"],
        "psnr_before": sampler.psnr(off),
        "psnr_after": sampler.psnr(on),
        "psnr_warp": sampler.psnr(warp),
        "seen": float(sampler.item.visible.mean()),
        "steps": len(log),
        "seconds_per_step": float(np.median([line["seconds"] for line in log])) if log else None,
    }
    rows = {"truth": truth, "warp": warp, "mask": sampler.rows()["mask"]}
    write_rows(folder / "report.png", {**rows, "adapter off": off, "adapter on": on})
    chart = write_loss_plot(folder / "loss.svg", folder / "log.jsonl")
    details = {
        "figures": figures,
        "heldout": {"before": before, "after": after},
        "settings": identity,
        "request": stated(plan),
        "notes": _NOTES,
    }
    for name, text in (
        ("report.json", json.dumps(details, indent=1) + "\n"),
        ("report.html", _page(plan, figures, before, after, chart)),
    ):
        with replacing(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    return figures


def _page(
    plan: LoraPlan,
    figures: dict[str, Any],
    before: dict[str, float],
    after: dict[str, float],
    chart: str,
) -> str:
    """One page that needs no other file."""
    names = {"total": "held-out loss", **{k: f"held-out loss, {k}" for k in before if k != "total"}}
    lines = [(title, f"{before[k]:.4f}", f"{after[k]:.4f}") for k, title in names.items()]
    psnr = (_decibels(figures["psnr_before"]), _decibels(figures["psnr_after"]))
    lines.append(("PSNR on seen pixels (dB)", *psnr))
    body = "".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in line)}</tr>" for line in lines)
    picture = _embedded(plan.request.folder / "report.png")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Camera adapter</title>'
        f"<style>{_STYLE}</style></head><body><h1>Camera adapter: before and after</h1>"
        f"<p>{escape(plan.model.name)}, {figures['steps']} steps, rank {plan.request.rank}, band "
        f"{escape(plan.request.band)}.</p>"
        f"<table><tr><th></th><th>adapter off</th><th>adapter on</th></tr>{body}</table>"
        f"<ul>{''.join(f'<li>{escape(n)}</li>' for n in _NOTES)}</ul>"
        f'{chart}<h2>First 33 frames</h2><img alt="frames" src="{picture}"></body></html>\n'
    )


def _decibels(value: float | None) -> str:
    return "nothing seen" if value is None else f"{value:.2f}"


def _embedded(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
