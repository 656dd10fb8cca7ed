"""The presets: what the literature says, which tasks each defines, and changes of single knobs."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from frame.eval.propagate.preset import Task, load_preset, presets
from frame.manifests.errors import InputError


def test_every_preset_loads_and_says_all_its_knobs() -> None:
    for task in get_args(Task):
        for name in presets(task):
            preset = load_preset(task, name)
            assert (preset.name, preset.task) == (name, task)
            assert (preset.masks is None) == (task == "jhmdb")
            assert (preset.joints is None) == (task != "jhmdb")
            options = json.loads(json.dumps(preset.options()))
            assert options["topk"] == preset.propagation.topk
            assert options["sides"] == list(preset.input.sides)


def test_which_presets_define_which_task() -> None:
    assert presets("davis") == ["catmae-s16", "catmae-s8", "crw", "dino", "rsp", "siammae", "uvc", "vfs"]
    assert presets("vip") == presets("jhmdb") == ["crw", "siammae", "uvc"]
    with pytest.raises(InputError, match=r"dino is not defined for vip[\s\S]*crw, siammae, uvc"):
        load_preset("vip", "dino")
    with pytest.raises(InputError, match=r"no such preset[\s\S]*siammae"):
        load_preset("davis", "../dino")


@pytest.mark.parametrize(
    ("task", "name", "expected"),
    [
        ("davis", "dino", {"topk": 5, "radius": 12, "shape": "square", "context": 7, "mask_first": True,
                           "temperature": 0.1, "std": [0.228, 0.224, 0.225], "minmax": "dino"}),
        ("davis", "siammae", {"topk": 7, "radius": 20, "shape": "circle", "context": 20, "mask_first": False,
                              "temperature": 0.7, "sides": [480, 880], "queue": "padded", "copy": []}),
        ("vip", "siammae", {"topk": 10, "rule": "long64", "sides": [880]}),
        ("jhmdb", "siammae", {"sides": [320, 320], "best": 5, "sigma": 0.5}),
        ("davis", "catmae-s16", {"topk": 8, "radius": 18, "temperature": 0.7, "copy": [480, 880]}),
        ("davis", "catmae-s8", {"topk": 12, "radius": 32, "temperature": 0.5}),
        ("davis", "rsp", {"topk": 7, "radius": 30, "shape": "square", "context": 30, "mask_first": True}),
        ("davis", "crw", {"topk": 10, "radius": 12, "shape": "circle", "context": 20, "temperature": 0.05,
                          "rule": "native"}),
        ("vip", "crw", {"context": 4, "sides": [560, 560]}),
        ("jhmdb", "crw", {"context": 7, "sides": [320, 320], "best": 3}),
        ("davis", "vfs", {"topk": 10, "radius": 18, "context": 20, "mask_first": True, "queue": "from_first",
                          "temperature": 0.07, "rule": "short"}),
        ("davis", "uvc", {"topk": 5, "topk_per_frame": True, "shape": "none", "context": 7, "temperature": 1.0}),
        ("vip", "uvc", {"context": 1, "sides": [560, 560]}),
        ("jhmdb", "uvc", {"topk": 20, "context": 7, "minmax_stored": True}),
    ],
)  # fmt: skip
def test_knobs_of_the_literature(task: Task, name: str, expected: dict[str, Any]) -> None:
    options = load_preset(task, name).options()
    assert {knob: options[knob] for knob in expected} == expected


def test_changes_are_in_the_name() -> None:
    changed = load_preset("davis", "dino", ["topk=7", "sides=512", "mask_first=false", "copy=480x880", "shape=circle"])
    assert changed.name == "dino+copy=480x880+mask_first=false+shape=circle+sides=512+topk=7"
    assert (changed.propagation.topk, changed.input.sides) == (7, (512,))
    assert changed.masks
    assert changed.masks.copy == (480, 880)
    assert load_preset("davis", "dino", ["topk=5", "temperature=0.1"]).name == "dino"
    assert load_preset("davis", "dino", ["topk=7", "topk=5"]).name == "dino"
    assert load_preset("davis", "dino", ["topk=5", "topk=9"]).name == "dino+topk=9"
    assert load_preset("davis", "rsp", ["copy="]).name == "rsp+copy="


@pytest.mark.parametrize(
    "change",
    ["topk", "knob=1", "topk=1.5", "topk=true", "topk=", "mask_first=1", "shape=hexagon", "sides=1x2x3", "sides=0",
     "std=1x2", "std=0x1x1", "temperature=a", "temperature=.nan", "radius=.inf", "copy=480", "sigma=1", "topk=[",
     "topk=-1"],
)  # fmt: skip
def test_refuses_changes_without_sense(change: str) -> None:
    with pytest.raises(InputError):
        load_preset("davis", "dino", [change])


def test_refuses_rounding_that_does_nothing() -> None:
    with pytest.raises(InputError, match="lightness"):
        load_preset("davis", "uvc", ["resized_as=float32"])
    with pytest.raises(InputError, match="sigma"):
        load_preset("jhmdb", "crw", ["sigma=0"])


def test_a_radius_without_a_neighbourhood_is_refused() -> None:
    with pytest.raises(InputError, match="A radius does nothing"):
        load_preset("davis", "uvc", ["radius=12"])
    assert load_preset("davis", "uvc", ["radius=12", "shape=square"]).propagation.radius == 12
