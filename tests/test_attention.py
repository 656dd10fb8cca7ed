"""Memory attention: the formula written out, masks, and a start that changes nothing."""

from __future__ import annotations

import torch
from small_models import normal, randomise
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from frame.model.attention import MemoryAttention

TOKENS, MEMORY, PLACES = normal(2, 5, 128), normal(2, 7, 16, seed=1), normal(5, 16, seed=3)
UP = nn.Linear(16, 128).requires_grad_(False)
randomise(UP, 4)


def layer(seed: int = 0) -> MemoryAttention:
    made = MemoryAttention(128, 2).eval()
    randomise(made, seed)
    return made


def normed(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()


def written_out(ours: MemoryAttention, tokens: Tensor, memory: Tensor, seen: list[int]) -> Tensor:
    """One frame, head by head and query by query, in double precision; ``seen`` are the memory tokens looked at."""
    weights = {name: value.double() for name, value in ours.state_dict().items()}
    queries = normed(tokens.double()) * weights["norm.weight"] + weights["norm.bias"]
    queries = queries + PLACES.double() @ UP.weight.double().T
    past = memory.double()[seen] @ UP.weight.double().T + UP.bias.double()
    both = torch.cat([past, queries]) @ weights["key_value.weight"].T + weights["key_value.bias"]
    keys, values = both[:, :128], both[:, 128:]
    queries = queries @ weights["query.weight"].T + weights["query.bias"]
    heads = []
    for head in (slice(0, 64), slice(64, 128)):
        rows = [torch.softmax(keys[:, head] @ query[head] / 8.0, dim=0) @ values[:, head] for query in queries]
        heads.append(torch.stack(rows))
    mixed = torch.cat(heads, dim=1) @ weights["proj.weight"].T + weights["proj.bias"]
    block = Block(128, 2, qkv_bias=True).double().eval()
    block.load_state_dict(ours.block.double().state_dict())
    ours.block.float()
    with torch.no_grad():
        out: Tensor = block((tokens.double() + mixed)[None])[0]
    return out


def test_it_is_cross_attention_to_the_past_and_itself_then_a_transformer_block() -> None:
    ours = layer()
    with torch.no_grad():
        found = ours(TOKENS, MEMORY, PLACES, UP, None)
    for frame in range(2):
        expected = written_out(ours, TOKENS[frame], MEMORY[frame], list(range(7)))
        torch.testing.assert_close(found[frame].double(), expected, rtol=1e-4, atol=1e-4)


def test_only_what_the_mask_shows_is_looked_at_and_always_the_frame_itself() -> None:
    ours = layer()
    mask = torch.tensor([[True, False, True, True, False, False, True], [False] * 7])
    with torch.no_grad():
        found = ours(TOKENS, MEMORY, PLACES, UP, mask)
    for frame in range(2):
        seen = mask[frame].nonzero()[:, 0].tolist()
        expected = written_out(ours, TOKENS[frame], MEMORY[frame], seen)
        torch.testing.assert_close(found[frame].double(), expected, rtol=1e-4, atol=1e-4)


def test_a_mask_that_shows_everything_is_as_none() -> None:
    with torch.no_grad():
        masked = layer()(TOKENS, MEMORY, PLACES, UP, torch.ones(2, 7, dtype=torch.bool))
        torch.testing.assert_close(masked, layer()(TOKENS, MEMORY, PLACES, UP, None), rtol=1e-5, atol=1e-5)


def test_a_fresh_layer_changes_nothing_yet_learns_from_the_first_step() -> None:
    fresh = MemoryAttention(128, 2)
    out = fresh(TOKENS, MEMORY, PLACES, UP, None)
    assert torch.equal(out, TOKENS)
    (out - normal(2, 5, 128, seed=2)).square().mean().backward()
    for last in (fresh.proj, fresh.block.attn.proj, fresh.block.mlp.fc2):
        assert float(last.weight.grad.abs().max()) > 0
