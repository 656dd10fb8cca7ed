"""RESULTS.md: every number of a `make real` with its configuration, seeds and spread, and what it shows and what not.

What stands between the two marks is made here; what a person wrote around them is kept.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_steps import BEGINS, PRESETS, TEACHER, Size

BEGIN, END = "<!-- made by `make real` -->", "<!-- end of what `make real` made -->"
_HEADLINE = "J&F_mean"


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """``results``: result.json by (encoder, task); ``validations``: the last of each run; ``facts``: lines about the
    caches, the teacher, the settings and the machine, by their heading; ``published``: the papers' rows."""

    results: Mapping[tuple[str, str], Mapping[str, Any]]
    validations: Mapping[str, Mapping[str, float]]
    facts: Mapping[str, Sequence[str]]
    published: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """``changes`` seed by seed; the ``spread`` of the seeds (largest less smallest) is the larger one of both sides."""

    title: str
    changes: tuple[float, ...]
    spread: float

    @property
    def mean(self) -> float:
        """Of the changes."""
        return statistics.mean(self.changes)

    @property
    def verdict(self) -> str:
        """Shown is only what every seed says and what is larger than the seeds differ among themselves."""
        if not self.spread:
            return "no verdict: with every seed the same two encoders"
        if min(self.changes) > 0 and self.mean > self.spread:
            return "**shown**: better with every seed, by more than the spread"
        if max(self.changes) < 0 and -self.mean > self.spread:
            return "**the reverse is shown**: worse with every seed, by more than the spread"
        if min(self.changes) > 0:
            return "not shown: better with every seed, by less than the spread"
        if max(self.changes) < 0:
            return "not shown: worse with every seed, by less than the spread"
        return "not shown: the seeds disagree"


def read_found(out: Path, facts: Mapping[str, Sequence[str]], published: Sequence[Mapping[str, Any]]) -> Found:
    """All that lies below OUT/results and OUT/runs."""
    results = {
        (path.parent.parent.name, path.parent.name): json.loads(path.read_text())
        for path in sorted((out / "results").glob("*/*/result.json"))
    }
    validations = {}
    for path in sorted((out / "runs").glob("**/metrics.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        key = "-".join(path.parent.relative_to(out / "runs").parts)
        validations[key] = [line for line in lines if line["kind"] == "val"][-1]
    return Found(results=results, validations=validations, facts=facts, published=published)


def results_text(found: Found, size: Size) -> str:
    """What goes between the marks."""
    parts = [
        _facts(found),
        "## DAVIS, sequences never trained on",
        *(_davis(found, size, preset) for preset in PRESETS),
        "### What that shows",
        _comparisons(compared(found, size)),
        "### By sequence (preset dino, J&F, mean over seeds)",
        _sequences(found, size),
        "## CamVid, linear segmentation",
        _camvid(found, size),
        "## Losses of the last validation",
        _validations(found, size),
        *(["## Ablations of stage 2 (from scratch, first seed)", _ablations(found, size)] if size.ablations else []),
        "## The papers' figures, for the eye",
        _published(found),
    ]
    return "\n\n".join(parts)


def put_into(path: Path, text: str) -> None:
    """Replace what stands between the marks; a file without them gets both."""
    old = path.read_text() if path.exists() else f"# Results\n\n{BEGIN}\n{END}\n"
    before, _, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{path} has lost the marks that say which part is made by the command")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def compared(found: Found, size: Size) -> list[Comparison]:
    """Stage 2 with stage 1, and each with the teacher, in J&F under the first preset."""
    teacher = _score(found, TEACHER, f"davis-{PRESETS[0]}")
    comparisons = []
    for begin in BEGINS:
        ones, twos = (_seeds(found, size, begin, stage) for stage in ("stage1", "stage2"))
        title = {"scratch": "from scratch", "init": "begun as the teacher"}[begin]
        pairs = tuple(two - one for one, two in zip(ones, twos, strict=True))
        both = max(_spread(ones), _spread(twos))
        comparisons += [
            Comparison(title=f"{title}: stage 2 above stage 1", changes=pairs, spread=both),
            Comparison(title=f"{title}: stage 1 above the teacher", changes=_less(ones, teacher), spread=_spread(ones)),
            Comparison(title=f"{title}: stage 2 above the teacher", changes=_less(twos, teacher), spread=_spread(twos)),
        ]
    return comparisons


def _less(values: Sequence[float], other: float) -> tuple[float, ...]:
    return tuple(value - other for value in values)


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _seeds(found: Found, size: Size, begin: str, stage: str, score: str = _HEADLINE) -> list[float]:
    return [_score(found, f"{begin}-{seed}-{stage}", f"davis-{PRESETS[0]}", score) for seed in size.seeds]


def _score(found: Found, encoder: str, task: str, score: str = _HEADLINE) -> float:
    return float(found.results[encoder, task]["scores"][score])


def _encoders(size: Size) -> dict[str, list[str]]:
    """Rows of a table: what they are called, and the results of their seeds."""
    rows = {"teacher": [TEACHER]}
    for begin, title in (("scratch", "from scratch"), ("init", "begun as the teacher")):
        for stage in ("stage1", "stage2"):
            rows[f"{title}, stage {stage[-1]}"] = [f"{begin}-{seed}-{stage}" for seed in size.seeds]
    return rows


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; all columns but the first are numbers."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _davis(found: Found, size: Size, preset: str) -> str:
    task = f"davis-{preset}"
    rows = []
    for title, keys in _encoders(size).items():
        there = [key for key in keys if (key, task) in found.results]
        if there:
            values = [_score(found, key, task) for key in there]
            rest = [statistics.mean(_score(found, key, task, name) for key in there) for name in ("J_mean", "F_mean")]
            each = ", ".join(f"{value:.4f}" for value in values) if len(values) > 1 else ""
            spread = f"{_spread(values):.4f}" if len(values) > 1 else ""
            rows.append(
                [title, f"**{statistics.mean(values):.4f}**", spread, each, *(f"{value:.4f}" for value in rest)]
            )
    head = ["encoder", "J&F", "spread", "seeds", "J", "F"]
    return f"Preset `{preset}`:\n\n{table(head, rows)}"


def _comparisons(comparisons: Sequence[Comparison]) -> str:
    rows = []
    for one in comparisons:
        each = ", ".join(f"{change:+.4f}" for change in one.changes)
        rows.append([one.title, each, f"{one.mean:+.4f}", f"{one.spread:.4f}", one.verdict])
    return table(["J&F, preset dino", "seeds", "mean", "spread", "verdict"], rows)


def _sequences(found: Found, size: Size) -> str:
    task = f"davis-{PRESETS[0]}"
    names = [item["name"] for item in found.results[TEACHER, task]["items"]]
    rows = []
    for title, keys in _encoders(size).items():
        items = [{item["name"]: item[_HEADLINE] for item in found.results[key, task]["items"]} for key in keys]
        rows.append([title, *(f"{statistics.mean(item[name] for item in items):.4f}" for name in names)])
    return table(["encoder", *(name.removesuffix("/1") for name in names)], rows)


def _camvid(found: Found, size: Size) -> str:
    ahead = next(name for name in found.results[TEACHER, "camvid"]["scores"] if name.startswith("mIoU@"))
    frames = int(ahead.removeprefix("mIoU@"))
    wanted = {
        "mIoU": "mIoU now", ahead: f"{frames / 30:g} s ahead", f"copy_last@{frames}": "last truth copied"
    }  # fmt: skip
    rows = []
    for title, keys in _encoders(size).items():
        there = [found.results[key, "camvid"]["scores"] for key in keys if (key, "camvid") in found.results]
        if there:
            rows.append([title, *(f"{statistics.mean(s[name] for s in there):.4f}" for name in wanted)])
    seeds = ", ".join(map(str, size.second))
    return f"Mean of seeds {seeds}.\n\n{table(['encoder', *wanted.values()], rows)}"


def _validations(found: Found, size: Size) -> str:
    names = ("patch_cosine", "cls_cosine", "future_patch_cosine", "future_cls_cosine")
    rows = []
    for title, keys in list(_encoders(size).items())[1:]:
        runs = [found.validations[key] for key in keys]
        means = [statistics.mean(run[name] for run in runs) if name in runs[0] else None for name in names]
        rows.append([title, *("" if mean is None else f"{mean:.4f}" for mean in means)])
    text = "Cosines with the teacher's features on the validation clips, mean over seeds."
    return f"{text}\n\n{table(['run', 'patches', 'CLS', 'patches 2 ahead', 'CLS 4 ahead'], rows)}"


def _ablations(found: Found, size: Size) -> str:
    base = _score(found, f"scratch-{size.seeds[0]}-stage2", f"davis-{PRESETS[0]}")
    rows = [["as it is", f"{base:.4f}", ""]]
    for name in size.ablations:
        key = "ablation-" + name.replace(" ", "-").replace("/", "by")
        score = _score(found, key, f"davis-{PRESETS[0]}")
        rows.append([name, f"{score:.4f}", f"{score - base:+.4f}"])
    return table(["stage 2", "J&F, preset dino", "change"], rows)


def _published(found: Found) -> str:
    rows = []
    for row in found.published:
        scores = ", ".join(f"{name} {value:.3f}" for name, value in row["scores"].items())
        rows.append([row["model"], row["task"], scores, row["protocol"]])
    text = (
        "Trained on 80,000 videos at 400 pixels, for days, on 8 to 16 A100; whole data sets. Not to be ranked with the "
        "figures above: those are of a few sequences, and of a teacher that is not DINO."
    )
    return f"{text}\n\n{table(['model', 'task', 'scores', 'what is known of the protocol'], rows)}"


def _facts(found: Found) -> str:
    blocks = [[f"**{head}**", "", *(f"- {line}" for line in lines)] for head, lines in found.facts.items()]
    return "\n\n".join("\n".join(block) for block in blocks)
