"""The statistics of the targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_caches import CLS, PATCH, add_column, make_cache, quick_disk

from frame.pipeline.store.files import writer_folder
from frame.pipeline.store.layout import unseal
from frame.pipeline.store.stats import stats_bytes, stats_name, write_statistics


@pytest.mark.parametrize("store", ["zarr", "webdataset"])
@pytest.mark.parametrize("encoding", ["float16", "int8"])
def test_they_are_those_of_all_stored_tokens(tmp_path: Path, store: Any, encoding: Any) -> None:
    made = make_cache(tmp_path, store=store, encoding=encoding)
    for column in (PATCH, CLS):
        tokens = made.values(column)[made.readable(column)].astype(np.float64)
        tokens = tokens.reshape(-1, tokens.shape[-1])
        mean, std = made.open().stats(column)
        assert mean.dtype == std.dtype == np.float32
        np.testing.assert_allclose(mean, tokens.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(std, tokens.std(axis=0), rtol=1e-6)
        path = tmp_path / stats_name(column)
        value = unseal(path.read_bytes(), where=path)
        assert value["tokens"] == len(tokens)
        np.testing.assert_array_equal(np.float32(value["mean"]), mean)
        np.testing.assert_array_equal(np.float32(value["std"]), std)


def test_they_are_plain_json(tmp_path: Path) -> None:
    make_cache(tmp_path)
    value = json.loads((tmp_path / stats_name(PATCH)).read_bytes())
    assert value["column"] == PATCH
    assert len(value["mean"]) == len(value["std"]) == 5


def test_a_cache_of_failures_only_has_none_to_speak_of(tmp_path: Path) -> None:
    made = make_cache(tmp_path, lengths=(4, 4), failed=(0, 1))
    mean, std = made.open().stats(PATCH)
    assert not mean.any()
    assert not std.any()


def test_files_that_are_right_are_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = add_column(make_cache(tmp_path))
    cache = made.open()
    written: list[Path] = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda a, b: (written.append(b), replace(a, b))[1])
    (tmp_path / stats_name(PATCH)).write_bytes(b"damaged")
    with quick_disk(), writer_folder(tmp_path) as tmp:
        write_statistics(cache, tmp=tmp)
    assert written == [tmp_path / stats_name(PATCH)]
    assert (tmp_path / stats_name(PATCH)).read_bytes() == stats_bytes(cache.columns[PATCH], cache.receipts())
    assert not (tmp_path / stats_name("frames")).exists()
