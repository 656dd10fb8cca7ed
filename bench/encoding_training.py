"""Does training notice the encoding? The same clips and seeds, from float16 and from what `recode` makes of it.

    python bench/encoding_training.py --cache CACHE --work DIR [--encoding residual] [--seeds 3] [--steps 400]
        [--davis DIR --sequences blackswan,libby] [--spatial NAME.patch --semantic NAME.cls] [--set NAME=VALUE ...]

CACHE is in float16. Stage 1 is trained from it and from its copy, once a seed each; the trained students then carry the
objects of DAVIS sequences along. What counts is the difference between the encodings, seed by seed, against the spread
of the seeds. Goes on where it was stopped: DIR keeps the runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="a cache in float16, with its frames")
    parser.add_argument("--work", type=Path, required=True, help="folder for the copy, the runs and the results")
    parser.add_argument("--encoding", default="residual")
    parser.add_argument("--spatial", default="deit.patch")
    parser.add_argument("--semantic", default="deit.cls")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--set", action="append", default=[], help="NAME=VALUE, as for frame-train")
    parser.add_argument("--davis", type=Path, help="DAVIS in its own layout")
    parser.add_argument("--sequences", default="", help="some of its sequences")
    return parser.parse_args()


def run(*command: object) -> None:
    program, *words = map(str, command)
    subprocess.run([str(Path(sys.executable).parent / program), *words], check=True, stdout=subprocess.DEVNULL)


def train(options: argparse.Namespace, cache: Path, seed: int, out: Path) -> dict[str, float]:
    """The figures of the last validation."""
    settings = [f"seed={seed}", f"steps={options.steps}", f"eval_every={options.steps}", "patience=0", *options.set]
    words = [word for setting in settings for word in ("--set", setting)]
    columns = ("--spatial", options.spatial, "--semantic", options.semantic)
    run("frame-train", "stage1", "--cache", cache, "--out", out, "--recipe", "demo", *columns, *words, "--resume")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "val"][-1]
    return {name: last[name] for name in ("patch", "patch_cosine", "cls", "cls_cosine")}


def evaluate(options: argparse.Namespace, encoder: Path, out: Path) -> dict[str, float]:
    """Mean J and F of the sequences."""
    if not (out / "result.json").exists():
        some = ("--sequences", options.sequences) if options.sequences else ()
        run("frame-eval", "davis", "--data", options.davis, "--encoder", encoder, "--out", out, *some)
    scores: dict[str, Any] = json.loads((out / "result.json").read_text())["scores"]
    return {name: float(scores[name]) for name in ("J&F_mean", "J_mean", "F_mean")}


def print_table(figures: dict[tuple[str, int], dict[str, float]], encoding: str, seeds: range) -> None:
    names = list(next(iter(figures.values())))
    print(
        f"\n{'':<14}{'float16: mean':>14}{'spread of seeds':>17}{encoding + ' - float16, a seed each':>44}{'':>4}within"
    )
    for name in names:
        whole = [figures["float16", seed][name] for seed in seeds]
        changes = [figures[encoding, seed][name] - figures["float16", seed][name] for seed in seeds]
        spread = max(whole) - min(whole)
        change = statistics.mean(changes)
        each = ", ".join(f"{value:+.5f}" for value in changes)
        verdict = "yes" if abs(change) < spread else "NO"
        print(f"{name:<14}{statistics.mean(whole):>14.5f}{spread:>17.5f}{each:>44}    {verdict}")


def main() -> None:
    options = arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    copy = options.work / "cache"
    run("frame-cache", "recode", options.cache, copy, "--encoding", options.encoding)
    seeds = range(options.seeds)
    figures = {}
    for seed in seeds:
        for encoding, cache in (("float16", options.cache), (options.encoding, copy)):
            out = options.work / f"{encoding.replace(':', '-')}-{seed}"
            found = train(options, cache, seed, out / "run")
            if options.davis:
                found |= evaluate(options, out / "run", out / "davis")
            figures[encoding, seed] = found
            print(encoding, seed, json.dumps(found), flush=True)
    print_table(figures, options.encoding, seeds)


if __name__ == "__main__":
    main()
