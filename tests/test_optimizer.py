from __future__ import annotations

import pytest
import torch
from torch import nn

from frame.model import FrameEncoder, MemoryConfig, ModelConfig
from frame.train.optimizer import OptimizerName, load_optimizer_tensors, make_optimizer, optimizer_tensors, trained


def small() -> FrameEncoder:
    torch.manual_seed(0)
    config = ModelConfig(
        width=64, depth=1, patch=8, size=(16, 16), semantic_dim=8, spatial_dim=8, memory=MemoryConfig()
    )
    return FrameEncoder(config)


def stepped(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for number in range(steps):
        for index, parameter in enumerate(module.parameters()):
            parameter.grad = torch.full_like(parameter, 0.1 * (index + number + 1))
        optimizer.step()


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_state_goes_through_names_and_the_next_steps_are_the_same_bits(name: OptimizerName) -> None:
    one, other = small(), small()
    first = make_optimizer(one, name=name, lr=0.01, weight_decay=0.1, fused=False)
    stepped(one, first, 3)
    second = make_optimizer(other, name=name, lr=0.01, weight_decay=0.1, fused=False)
    other.load_state_dict(one.state_dict())
    load_optimizer_tensors(other, second, optimizer_tensors(one, first))
    stepped(one, first, 2)
    stepped(other, second, 2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_matrices_decay_and_nothing_else_does() -> None:
    module = small()
    optimizer = make_optimizer(module, name="adamw", lr=0.01, weight_decay=0.1, fused=False)
    names = {parameter: name for name, parameter in module.named_parameters()}
    decaying, exempt = ({names[p] for p in group["params"]} for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert {"vit.vit.blocks.0.attn.qkv.weight", "memory.down.weight", "semantic.head.weight"} <= decaying
    assert {"vit.vit.pos_embed", "vit.vit.cls_token", "memory.age", "vit.vit.norm.weight", "memory.up.bias"} <= exempt
    assert decaying | exempt == set(trained(module))


def test_an_optimizer_that_has_made_no_step_has_no_state() -> None:
    module = small()
    optimizer = make_optimizer(module, name="adam", lr=0.01, weight_decay=0.0, fused=False)
    load_optimizer_tensors(module, optimizer, optimizer_tensors(module, optimizer))
    assert not optimizer.state


def test_the_state_of_another_module_is_refused() -> None:
    module = small()
    optimizer = make_optimizer(module, name="adam", lr=0.01, weight_decay=0.0, fused=False)
    stepped(module, optimizer, 1)
    tensors = optimizer_tensors(module, optimizer)
    missing = {key: value for key, value in tensors.items() if not key.startswith("memory.age")}
    with pytest.raises(ValueError, match=r"memory\.age"):
        load_optimizer_tensors(module, optimizer, missing)
    with pytest.raises(ValueError, match="other parameters"):
        load_optimizer_tensors(module, optimizer, {**tensors, "ghost/step": torch.tensor(1.0)})
