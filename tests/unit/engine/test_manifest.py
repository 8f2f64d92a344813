"""Lists of videos: columns, values, combinations, ids, and the sentences of refusals."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flythrough.engine.columns import COLUMNS, WHOLE_BATCH
from flythrough.engine.manifest import Manifest, read_manifest
from flythrough.engine.request import GenerateRequest
from flythrough.errors import InputError


def csv_list(folder: Path, text: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def jsonl_list(folder: Path, *rows: Mapping[str, Any]) -> Path:
    path = folder / "list.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ids(manifest: Manifest) -> list[str]:
    assert manifest.faults == ()
    return [row.id for row in manifest.rows]


def test_every_option_of_a_video_is_a_column() -> None:
    fields = set(GenerateRequest.__dataclass_fields__)
    assert set(COLUMNS) | set(WHOLE_BATCH) == fields
    assert COLUMNS["warp_mask"].kind == "path"
    assert COLUMNS["camera"].kind == "text"
    assert (COLUMNS["size"].kind, COLUMNS["steps"].kind) == ("size", "steps")


def test_cells_become_typed_options(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    header = "id,Image,--camera,prompt,frames,size,seed,steps,guidance,negative-prompt,anchor\n"
    row = 'w,a.png,forward 0.3,"a hill, at dusk",40,64x128,7,"2,2,2",1.5,blur,\n'
    (only,) = read_manifest(csv_list(tmp_path, header + row)).rows
    assert only.options == {
        "image": tmp_path / "a.png",
        "camera": "forward 0.3",
        "prompt": "a hill, at dusk",
        "frames": 40,
        "size": (64, 128),
        "seed": 7,
        "steps": (2, 2, 2),
        "guidance": 1.5,
        "negative_prompt": "blur",
    }


def test_files_beside_the_list_come_first_and_words_are_no_files(tmp_path: Path) -> None:
    for name in ("path.npz", "depth.npy", "flat", "nano", "static"):
        (tmp_path / name).write_bytes(b"x")
    rows = [
        {"camera": "path.npz", "geometry": "depth.npy", "lora": "off", "model": "nano"},
        {"camera": "static", "geometry": "flat", "image": "elsewhere/b.png"},
    ]
    one, two = read_manifest(jsonl_list(tmp_path, *rows)).rows
    assert one.options["camera"] == str(tmp_path / "path.npz")
    assert one.options["geometry"] == str(tmp_path / "depth.npy")
    assert (one.options["lora"], one.options["model"]) == ("off", "nano")
    assert (two.options["camera"], two.options["geometry"]) == ("static", "flat")
    assert two.options["image"] == Path("elsewhere/b.png")


def test_lists_are_multiplied_and_told_apart(tmp_path: Path) -> None:
    text = "id,image,camera,prompt,seed\nw,a.png|b.png,static,x,1|5\n"
    expected = ["w-a-seed1", "w-a-seed5", "w-b-seed1", "w-b-seed5"]
    assert ids(read_manifest(csv_list(tmp_path, text))) == expected
    row = {"id": "w", "image": ["1/a.png", "2/a.png"], "camera": ["static", "forward 1"]}
    names = ids(read_manifest(jsonl_list(tmp_path, row)))
    assert names == [f"w-image{i}-camera{c}" for i in (1, 2) for c in (1, 2)]
    one = {"id": "w", "prompt": ["only"]}
    assert ids(read_manifest(jsonl_list(tmp_path, one))) == ["w"]


def test_a_bar_in_json_text_is_text(tmp_path: Path) -> None:
    (row,) = read_manifest(jsonl_list(tmp_path, {"prompt": "a|b"})).rows
    assert row.options["prompt"] == "a|b"


def test_rows_without_id_are_named_after_the_list(tmp_path: Path) -> None:
    assert ids(read_manifest(csv_list(tmp_path, "prompt\nx\n"))) == ["list"]
    assert ids(read_manifest(csv_list(tmp_path, "prompt\nx\n\ny\n"))) == ["list-001", "list-002"]
    assert ids(read_manifest([{"prompt": "x"}, {"prompt": "y"}])) == ["row-001", "row-002"]


def test_options_for_all_rows_give_way_to_the_rows_own(tmp_path: Path) -> None:
    path = csv_list(tmp_path, "prompt,frames\nx,40\ny,\n")
    rows = read_manifest(path, {"frames": 8, "seed": 3, "model": None}).rows
    assert [(r.options["frames"], r.options["seed"]) for r in rows] == [(40, 3), (8, 3)]
    with pytest.raises(InputError, match="--frames 8 has no effect"):
        read_manifest(csv_list(tmp_path, "prompt,frames\nx,40\n"), {"frames": 8})
    with pytest.raises(InputError, match="option 'speed' is unknown"):
        read_manifest(path, {"speed": 8})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("id,promt\na,x\n", "column 'promt' is unknown; did you mean 'prompt'?"),
        ("id,wobble\na,x\n", "column 'wobble' is unknown; known are id, image"),
        ("id,device\na,cpu\n", "'device' has no place in a list"),
        ("id,id\na,b\n", "column 'id' twice"),
        ("prompt\n", "holds no rows"),
        ("", "holds no rows"),
        ('prompt\n"x\n', "not valid CSV"),
    ],
)
def test_lists_that_cannot_be_read(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError) as refusal:
        read_manifest(csv_list(tmp_path, text))
    assert sentence in str(refusal.value)


@pytest.mark.parametrize("name", ["list.txt", "none.csv", "latin.csv"])
def test_files_that_are_no_lists(tmp_path: Path, name: str) -> None:
    (tmp_path / "list.txt").write_text("prompt\nx\n")
    (tmp_path / "latin.csv").write_bytes("prompt\ncafé\n".encode("latin-1"))
    with pytest.raises(InputError, match=name):
        read_manifest(tmp_path / name)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"frames": "many"}, "frames 'many' must be a whole number"),
        ({"frames": True}, "must be a whole number"),
        ({"frames": 2.5}, "must be a whole number"),
        ({"frames": [1, 2]}, "must be a whole number"),
        ({"size": "big"}, "not HEIGHTxWIDTH"),
        ({"steps": ["a"]}, "steps 'a' must be a whole number"),
        ({"guidance": "strong"}, "must be a number"),
        ({"prompt": 5}, "must be text"),
        ({"anchor": "third"}, "one of first, second, none"),
        ({"image": ["a.png", ""]}, "empty place"),
        ({"seed": []}, "empty place"),
        ({"id": "../x"}, "cannot name a file"),
        ({"id": ".x"}, "cannot name a file"),
        ({"id": "a/b"}, "cannot name a file"),
        ({"id": "x" * 101}, "cannot name a file"),
        ({"speed": 1}, "column 'speed' is unknown; did you mean 'seed'?"),
        ({"seed": list(range(200)), "prompt": ["p"] * 60}, "12000 combinations"),
    ],
)
def test_each_faulty_row_is_named(tmp_path: Path, row: dict[str, Any], sentence: str) -> None:
    manifest = read_manifest(jsonl_list(tmp_path, {"prompt": "fine"}, row, {"prompt": "too"}))
    assert len(manifest.rows) == 2
    (fault,) = manifest.faults
    assert fault.startswith("row 2: ")
    assert sentence in fault


def test_lines_that_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"prompt": "x"}\nnot json\n[1]\n')
    assert [f.split(" (")[0] for f in read_manifest(path).faults] == [
        "row 2: It is not JSON",
        "row 3: It is not a JSON object; write one object a line.",
    ]
    wide = read_manifest(csv_list(tmp_path, "id,prompt\na,a hill, at dusk\n"))
    assert "3 cells but the header has 2" in wide.faults[0]


def test_ids_that_would_be_one_file(tmp_path: Path) -> None:
    manifest = read_manifest(csv_list(tmp_path, "id,prompt\nwalk,x\nWalk,y\n"))
    assert manifest.faults == ("row 2: The id Walk is taken by row 1; give each video its own.",)


WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=20
).filter(lambda text: text.strip() == text and text and "|" not in text)
ROWS = st.fixed_dictionaries(
    {"prompt": WORDS},
    optional={
        "frames": st.integers(1, 1000),
        "seed": st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3, unique=True),
        "size": st.sampled_from(["64x128", "192x320"]),
        "steps": st.sampled_from(["2,2,2", "50"]),
        "guidance": st.floats(1, 100, allow_nan=False),
        "negative_prompt": WORDS,
        "camera": st.lists(st.sampled_from(["static", "forward 0.3; pan left 5deg"]), min_size=1),
        "method": st.sampled_from(["helios", "warp-as-history"]),
    },
)


@given(st.lists(ROWS, min_size=1, max_size=5))
def test_csv_and_jsonl_say_the_same(tmp_path_factory: Any, rows: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("lists")
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, ["id", *COLUMNS])
    writer.writeheader()
    for number, row in enumerate(rows):
        row["id"] = f"r{number}"
        cells = {k: "|".join(map(str, v)) if isinstance(v, list) else v for k, v in row.items()}
        writer.writerow(cells)
    one = read_manifest(csv_list(folder, table.getvalue()))
    two = read_manifest(jsonl_list(folder, *rows))
    assert one.rows == two.rows
    assert one.faults == two.faults == ()
    stated = rows[-1]
    assert one.rows[-1].options.get("frames") == stated.get("frames")
    assert one.rows[-1].options["prompt"] == stated["prompt"]
