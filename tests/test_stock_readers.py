"""A cache is readable without this project: by zarr, pyarrow and json alone, by webdataset alone.

The readers run in interpreters in which ``frame`` cannot be imported. They know what the README says of the format,
and no more: NumPy arrays, rows from the index, value = integer x scale of its token for int8, and the running sum of
docs/encoding.md for residual.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_caches import CLS, LATER, PATCH, Made, add_column, make_cache

BLOCK = """
import sys

class NoFrame:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "frame":
            raise ImportError("frame cannot be imported here")

sys.meta_path.insert(0, NoFrame())
try:
    import frame
except ImportError:
    pass
else:
    sys.exit("frame could be imported")
"""

ZARR = """
import json
from pathlib import Path
import numpy as np
import pyarrow.parquet
import zarr

for cache, out in zip(map(Path, sys.argv[1::2]), sys.argv[2::2]):
    columns = json.loads((cache / "cache.json").read_text())["columns"]
    receipts = [json.loads(path.read_text()) for path in sorted((cache / "receipts").glob("*.json"))]
    group = zarr.open_group(cache, mode="r")
    found = {}
    for clip in pyarrow.parquet.read_table(cache / "index.parquet").to_pylist():
        rows = slice(clip["first_row"], clip["first_row"] + clip["n_frames"])
        for name, column in columns.items():
            values = group[name][rows]
            if any(name in receipt["failed"].get(clip["clip"], {"columns": []})["columns"] for receipt in receipts):
                assert column["encoding"] != "float16" or np.isnan(values).all()
                continue
            if column["encoding"] == "residual":
                size = group[name].chunks[0]
                first = rows.start // size * size
                stored = group[name][first : -(-rows.stop // size) * size]
                chunks = (stored - np.uint16(128)).reshape(-1, size, *stored.shape[1:])
                levels = np.cumsum(chunks, axis=1, dtype=np.uint16).view(np.int16).reshape(stored.shape)
                about = group[name].attrs
                values = levels * np.float32(about["step"]) + np.float32(about["mean"])
                values = values[rows.start - first : rows.stop - first]
            if column["encoding"] == "int8":
                scale = group[name + ".scale"][rows].astype(np.float32)
                values = values * (scale[..., None] if values.ndim > 2 else scale)
            found[clip["clip"] + ":" + name] = values.astype(column["dtype"])
    np.savez(out, **found)
assert not any(name.split(".")[0] in ("webdataset", "torch") for name in sys.modules)
"""

WEBDATASET = """
import json
from pathlib import Path
import numcodecs
import numpy as np
import webdataset

for cache, out in zip(map(Path, sys.argv[1::2]), sys.argv[2::2]):
    found = {}
    for shard in sorted(map(str, (cache / "shards").glob("*.tar"))):
        for sample in webdataset.WebDataset(shard, shardshuffle=False, empty_check=False).decode("rgb8"):
            clip = sample["json"]
            assert clip["clip"] == sample["__key__"] and len(clip["timestamps"]) == clip["n_frames"]
            arrays = [key.removesuffix(".npy") for key in sample if key.endswith(".npy")]
            names = [name for name in arrays if not name.endswith(".scale")]
            values = {name: sample[name + ".npy"] for name in names}
            for name in names:
                if name + ".scale.npy" in sample:
                    scale = sample[name + ".scale.npy"].astype(np.float32)
                    values[name] = values[name] * (scale[..., None] if values[name].ndim > 2 else scale)
                    values[name] = values[name].astype(np.float16)
            columns = json.loads((cache / "cache.json").read_text())["columns"]
            for name in {key[: -len(".0000.blosc")] for key in sample if key.endswith(".0000.blosc")}:
                parts = [sample[key] for key in sorted(sample) if key.startswith(name) and key.endswith(".blosc")]
                stored = [np.frombuffer(numcodecs.blosc.decompress(part), "<u2") for part in parts]
                chunks = [part.reshape(-1, *columns[name]["shape"]) - np.uint16(128) for part in stored]
                levels = np.concatenate([np.cumsum(part, axis=0, dtype=np.uint16).view(np.int16) for part in chunks])
                about = columns[name]
                values[name] = (levels * np.float32(about["step"]) + np.float32(about["mean"])).astype(np.float16)
            if "0000.png" in sample:
                values["frames"] = np.stack([sample[f"{i:04d}.png"] for i in range(clip["n_frames"])])
            for name, array in values.items():
                parts = found.setdefault(clip["clip"] + ":" + name, [])
                assert sum(map(len, parts)) == clip["first_frame"]
                parts.append(array)
    np.savez(out, **{name: np.concatenate(parts) for name, parts in found.items()})
assert not any(name.split(".")[0] in ("zarr", "pyarrow") for name in sys.modules)
"""


def read_without_frame(caches: Sequence[Made], code: str) -> list[dict[str, np.ndarray]]:
    """What ``code`` finds in each of the caches, by clip and column."""
    outs = [made.path.with_suffix(".npz") for made in caches]
    pairs = [str(path) for made, out in zip(caches, outs, strict=True) for path in (made.path, out)]
    done = subprocess.run(
        [sys.executable, "-I", "-c", BLOCK + code, *pairs], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    found = []
    for out in outs:
        with np.load(out, allow_pickle=False) as arrays:
            found.append(dict(arrays))
    return found


def expected_of(made: Made) -> dict[str, np.ndarray]:
    expected = {}
    for clip in made.table.to_pylist():
        for column in ("frames", PATCH, CLS, LATER):
            if clip["clip"] not in made.failed[column] and clip["n_frames"]:
                rows = slice(clip["first_row"], clip["first_row"] + clip["n_frames"])
                expected[f"{clip['clip']}:{column}"] = made.values(column)[rows]
    return expected


@pytest.mark.parametrize(("store", "code"), [("zarr", ZARR), ("webdataset", WEBDATASET)])
def test_stock_libraries_read_the_same_numbers(tmp_path: Path, store: Any, code: str) -> None:
    """Clips longer than a unit, failed ones, and a column added later among them; every encoding."""
    encodings: tuple[Any, ...] = ("float16", "int8", "residual")
    caches = [add_column(make_cache(tmp_path / name, store=store, encoding=name), failed=[3]) for name in encodings]
    for made, found in zip(caches, read_without_frame(caches, code), strict=True):
        expected = expected_of(made)
        assert found.keys() - {name for name, array in found.items() if not len(array)} == expected.keys()
        for name, values in expected.items():
            assert found[name].dtype == values.dtype
            assert np.array_equal(found[name], values), name
            clip, column = name.split(":")
            (rows,) = (row for row in made.table.to_pylist() if row["clip"] == clip)
            ours = made.open().read(column, rows["first_row"], rows["first_row"] + rows["n_frames"])
            assert np.array_equal(found[name], ours)


DOCUMENTED = """
for cache, out in zip(map(Path, sys.argv[1::2]), sys.argv[2::2]):
    index = pyarrow.parquet.read_table(cache / "index.parquet")
    found = {}
    for clip in index.column("clip").to_pylist():
        for column in json.loads((cache / "cache.json").read_text())["columns"]:
            try:
                found[clip + ":" + column] = read_clip(cache, clip, column)
            except ValueError:
                continue
    np.savez(out, **found)
"""


def test_the_reader_in_the_documentation_gives_our_bits(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "format.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: tuple[Any, ...] = ("float16", "int8", "residual")
    caches = [add_column(make_cache(tmp_path / name, encoding=name), failed=[3]) for name in names]
    for made, found in zip(
        caches, read_without_frame(caches, f"from pathlib import Path\n{code}\n{DOCUMENTED}"), strict=True
    ):
        expected = expected_of(made)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            assert np.array_equal(found[name], values), name


def test_the_block_is_one() -> None:
    """Without it ``frame`` can be imported, or the test above would show nothing."""
    code = BLOCK.replace("sys.meta_path.insert(0, NoFrame())", "")
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=100)
    assert "frame could be imported" in done.stderr
