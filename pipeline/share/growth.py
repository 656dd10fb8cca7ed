"""Is one state of a cache what another has grown into? Units and columns are only ever added; whatever is replaced by
anything else would be lost without a word."""

from __future__ import annotations

from frame.pipeline.store.layout import CacheMeta
from frame.pipeline.store.receipts import Receipt


def plan_difference(old: CacheMeta, new: CacheMeta) -> str:
    """Why ``new`` is not ``old`` with perhaps more columns, in words; empty if it is."""
    if old.plan_id != new.plan_id:
        return f"plan {old.plan_id[:12]} there is not plan {new.plan_id[:12]}: other clips, sampling, sizes or units"
    if lost := [name for name in old.columns if name not in new.columns]:
        return f"the other one also has the column {lost[0]}"
    for name, column in old.columns.items():
        if column != new.columns[name] or old.teacher_id(name) != new.teacher_id(name):
            return f"the column {name} is of another teacher, shape or encoding"
    if not old.metadata.items() <= new.metadata.items():
        return "Zarr metadata of the same arrays were written by another release of zarr"
    return ""


def extends(old: Receipt, new: Receipt) -> bool:
    """Has ``new`` all that ``old`` commits, file for file and column for column?"""
    return (
        all(new.files.get(name) == entry for name, entry in old.files.items())
        and all(new.columns.get(name) == entry for name, entry in old.columns.items())
        and all(
            clip in new.failed and set(failure.columns) <= set(new.failed[clip].columns)
            for clip, failure in old.failed.items()
        )
    )
