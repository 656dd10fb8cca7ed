from __future__ import annotations

import pytest

from frame.manifests.errors import InputError
from frame.train.config import Stage, TrainConfig, changed
from frame.train.recipe import load_recipe, recipe_names


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_makes_a_configuration(name: str, stage: Stage) -> None:
    recipe = load_recipe(name)
    changed(TrainConfig(stage=stage), recipe.settings(stage), where=name)
    assert recipe.about


def test_the_papers_five_students_are_there_on_both_data_sets() -> None:
    for student in ("s16", "s8", "b16", "b8", "l14"):
        for data in (("kinetics",), ("kinetics", "ego4d")):
            recipe = load_recipe(f"{student}-{'-'.join(data)}")
            assert recipe.datasets == data
            assert recipe.size == (392 if student == "l14" else 400)
            assert recipe.stage1["patch"] == int(student[1:])
            assert recipe.stage1["epochs"] == 70


@pytest.mark.parametrize(
    "names",
    [
        [f"encoder-depth-{n}" for n in (8, 10, 12, 14, 16, 18)],
        [f"decoder-depth-{n}" for n in range(1, 6)],
        [f"memory-frames-{n}" for n in range(1, 8)],
        [f"resolution-{n}" for n in (224, 320, 400, 512, 720)],
        [f"data-{n}" for n in (20, 30, 40, 60, 80, 100)],
        ["no-memory", "no-anticipation", "finetune", "single-stage"],
        ["loss-mse-cls", "loss-unscaled", "loss-dropout", "loss-gradient-balancing"],
    ],
)
def test_every_ablation_of_the_paper_differs_from_its_base(names: list[str]) -> None:
    base = load_recipe("s16-kinetics-ego4d")
    found = [load_recipe(name) for name in names]
    values = [(dict(one.stage1), dict(one.stage2), one.size) for one in found]
    assert all(values.count(value) == 1 for value in values)
    own = (base.stage1, base.stage2, base.size)
    same = [one.name for one, value in zip(found, values, strict=True) if value == own]
    assert same in ([], ["resolution-400"])  # the paper's own choice is the base


def test_a_recipe_builds_on_its_base() -> None:
    recipe = load_recipe("b8-kinetics-ego4d")
    assert recipe.stage2["student"] == "vit_base"
    assert recipe.stage2["spatial"] == "dino_vitb8.patch"
    assert recipe.stage2["precision"] == "fp16"


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="s16-kinetics"):
        load_recipe("s16-kinetix")
