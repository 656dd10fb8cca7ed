"""``render_view``: a cache to one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from frame.manifests.errors import InputError
from frame.pipeline.store import Cache
from frame.pipeline.view import facts
from frame.pipeline.view.choose import choose_clips
from frame.pipeline.view.clips import view_clips
from frame.pipeline.view.evaluation import Evaluation, view_evaluation
from frame.pipeline.view.template import environment, house_style
from frame.pipeline.view.training import Training, view_training

_HERE = Path(__file__).parent


def render_view(
    cache: Cache,
    out: Path,
    *,
    clips: int = 6,
    seed: int = 0,
    timings: Sequence[Mapping[str, Any]] = (),
    title: str | None = None,
    runs: Sequence[Path] = (),
    results: Sequence[Path] = (),
) -> tuple[str, ...]:
    """Write a page about ``cache`` to ``out``, which then holds the whole page or what it held before.

    ``clips`` of those that can be read are shown, chosen by ``seed``. ``timings`` are the parsed lines of the builds'
    timings, each with ``units``, ``rows``, ``wall`` (seconds), ``seconds`` by stage, and perhaps ``workers`` by stage.
    ``runs`` are folders of training runs, whose curves are shown; ``results`` folders with evaluations below them,
    whose tables are. Returns a sentence for each result that cannot be read, which the page says, too. The same cache,
    runs, results and arguments give the same bytes. Raises ``InputError`` where ``out`` cannot be written, ``clips`` is
    negative, a run has no metrics or a folder no results, ``CacheError`` where the cache is damaged.
    """
    if clips < 0:
        raise InputError(what=f"A page cannot show {clips} clips.", where="--clips", fix="give 0 or more")
    _require_place(cache, out)
    training = view_training(runs) if runs else None
    evaluation = view_evaluation(results) if results else None
    page = _page(cache, clips=clips, seed=seed, timings=timings, title=title, training=training, evaluation=evaluation)
    _write(out, page)
    return evaluation.lost if evaluation else ()


def _require_place(cache: Cache, out: Path) -> None:
    """Refuse what can be told before the work begins."""
    why = fix = ""
    folder = out.absolute().parent
    if os.path.isdir(out):  # noqa: PTH112 - Path.is_dir raises for a name that is too long
        why, fix = "it is a folder", f"name a file in it: --out {out / 'report.html'}"
    elif not folder.is_dir():
        why, fix = f"the folder {folder} does not exist", "make it first, or give another --out"
    elif cache.path.resolve() in (folder.resolve(), *folder.resolve().parents):
        why = "it lies inside the cache, where `verify` would report it as a file that nothing commits"
        fix = "put the page beside the cache"
    if why:
        raise InputError(what="The page cannot be written there.", where=str(out), why=why, fix=fix)


def _write(out: Path, page: str) -> None:
    partial = out.absolute().with_name(f".frame-view.{os.getpid()}.partial")
    try:
        partial.write_bytes(page.encode("utf-8", "backslashreplace"))  # a path's name may hold bytes that are no text
        partial.replace(out)
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(what="The page could not be written.", where=str(out), why=why) from error
    finally:
        partial.unlink(missing_ok=True)


def _page(
    cache: Cache,
    *,
    clips: int,
    seed: int,
    timings: Sequence[Mapping[str, Any]],
    title: str | None,
    training: Training | None,
    evaluation: Evaluation | None,
) -> str:
    receipts = cache.receipts()
    chosen = choose_clips(cache, count=clips, seed=seed)
    views, explained = view_clips(cache, chosen)
    failed = facts.failure_groups(cache)
    teachers = facts.teacher_names(cache)
    random = [name for name, record, _ in teachers if record.get("weights", {}).get("origin") == "random"]
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    return (
        environment()
        .get_template("page.jinja")
        .render(
            title=title or f"{cache.meta.dataset.get('name', 'Features')}: {cache.path.absolute().name}",
            overview=facts.overview(cache),
            units=facts.units(cache, receipts),
            labels=facts.label_counts(cache),
            columns=facts.column_facts(cache, receipts),
            stored=sum(entry.bytes for receipt in receipts.values() for entry in receipt.files.values()),
            teachers=teachers,
            random=random,
            untrained={column for name, _, made in teachers if name in random for column in made},
            failed=failed,
            failed_count=sum(group.count for group in failed),
            time=facts.time_spent(timings),
            training=training,
            evaluation=evaluation,
            clips=views,
            asked=clips,
            explained=explained,
            style=house_style(),
            script=Markup(script),
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
