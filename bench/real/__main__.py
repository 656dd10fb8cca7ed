"""The whole way on real videos, in one command, and RESULTS.md of it: `make real DATA=FOLDER [SIZE=cpu|gpu]`.

    python bench/real --data FOLDER --out DIR [--size cpu|gpu] [--jobs N] [--ablations] [--results RESULTS.md]

FOLDER holds `jhmdb/videos` and `clips` (videos to train on), `davis2016` and `camvid` in their own layouts, and
`weights/deit_tiny_patch16_224.safetensors`; each may be given apart, see --help. Stopped, it goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from real_facts import facts, published_rows
from real_results import put_into, read_found, results_text
from real_run import StepError, run_all
from real_steps import ABLATIONS, SIZES, Inputs, Size, Step, all_steps


def main() -> int:
    options = _arguments()
    size = SIZES[options.size]
    if options.ablations:
        size = replace(size, ablations=ABLATIONS)
    inputs = _inputs(options)
    missing = [path for path in (*inputs.videos, inputs.davis, inputs.camvid, inputs.weights) if not path.exists()]
    if missing:
        print(
            "\n".join(["These are not there:", *(f"  {path}" for path in missing), "See `python bench/real --help`."])
        )
        return 2
    steps = all_steps(inputs, size, options.out)
    try:
        run_all(steps, options.out, jobs=options.jobs)
    except StepError as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on.", file=sys.stderr)
        return 130
    _write(inputs, size, options.out, options.results, steps)
    return 0


def _write(inputs: Inputs, size: Size, out: Path, results: Path, steps: Sequence[Step]) -> None:
    found = read_found(out, facts(inputs, size, out, steps), published_rows())
    put_into(results, results_text(found, size))
    print(f"Wrote {results}.")


def _inputs(options: argparse.Namespace) -> Inputs:
    data: Path = options.data
    weights = options.weights or data / "weights" / "deit_tiny_patch16_224.safetensors"
    return Inputs(
        videos=tuple(options.videos or (data / "jhmdb" / "videos", data / "clips")),
        davis=options.davis or data / "davis2016",
        camvid=options.camvid or data / "camvid",
        ahead=options.camvid_ahead,
        spec=options.teacher,
        weights=weights,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with everything")
    parser.add_argument("--out", type=Path, default=Path("real"), help="caches, runs, results and logs")
    parser.add_argument("--size", choices=sorted(SIZES), default="cpu")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="commands at a time")
    parser.add_argument("--ablations", action="store_true", help="of stage 2 (the GPU's size has them anyway)")
    parser.add_argument("--results", type=Path, default=Path("RESULTS.md"))
    parser.add_argument("--videos", type=Path, action="append", help="a folder to train on; may be repeated")
    parser.add_argument("--davis", type=Path)
    parser.add_argument("--camvid", type=Path)
    parser.add_argument("--camvid-ahead", type=int, default=270, help="frames to a future label; all of CamVid: 30")
    parser.add_argument("--teacher", default="timm:deit_tiny_patch16_224", help="of both targets, as for frame-cache")
    parser.add_argument("--weights", type=Path, help="its weights")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
