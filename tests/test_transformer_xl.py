"""Relative attention against loops, causality, and a text that comes out the same however it is cut."""

import math
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quartznet.transformer_xl import (
    Memory,
    RelativeAttention,
    TransformerConfig,
    TransformerXL,
    relative_shift,
    sinusoids,
    visible,
)

GOLDEN = Path(__file__).parent / "golden" / "transformer_xl.npz"
TINY = TransformerConfig(layers=2, channels=8, heads=2, memory=5, dropout=0.0)


def random_network(config: TransformerConfig = TINY, letters: int = 6) -> TransformerXL:
    """All weights random, u, v and the norms too: fresh ones do almost nothing."""
    network = TransformerXL(letters, config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return network


def in_segments(network: TransformerXL, ids: Tensor, sizes: list[int]) -> Tensor:
    """Scores of a stream that is handed over piece by piece."""
    scores, memory = [], None
    for piece in ids.split(sizes, dim=1):
        part, memory = network(piece, memory)
        scores.append(part)
    return torch.cat(scores, dim=1)


# ---------------------------------------------------------------------------------------------------------------------
# Parts


@given(queries=st.integers(1, 5), before=st.integers(0, 5))
def test_shift_is_what_a_double_loop_looks_up(queries: int, before: int) -> None:
    keys = before + queries
    by_distance = torch.arange(2 * queries * keys).reshape(2, queries, keys)
    shifted = relative_shift(by_distance)
    assert shifted.shape == by_distance.shape
    for query in range(queries):
        for key in range(before + query + 1):
            distance = before + query - key
            assert torch.equal(shifted[:, query, key], by_distance[:, query, keys - 1 - distance])


def test_sinusoids_by_hand() -> None:
    found = sinusoids(torch.tensor([2, 0]), 4)
    expected = [[math.sin(2), math.sin(2 / 100), math.cos(2), math.cos(2 / 100)], [0, 0, 1, 1]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_what_is_seen() -> None:
    seen = visible(torch.tensor([[0, 1, 1, 1, 2]]), queries=3, memory=1)
    assert seen.shape == (1, 1, 3, 5)
    assert seen[0, 0].int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]


def test_attention_is_the_formula_of_the_paper() -> None:
    attention = RelativeAttention(8, 2, 0.0).eval()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    context, positions = torch.randn(1, 5, 8), sinusoids(torch.arange(4, -1, -1), 8)
    seen = visible(torch.zeros(1, 5, dtype=torch.long), queries=3, memory=3)
    key, value = (attention.key_value.weight @ context[0].T).T.chunk(2, dim=1)
    expected = torch.zeros(3, 8)
    for head, part in enumerate((slice(0, 4), slice(4, 8))):
        for i in range(3):
            query = (attention.query.weight @ context[0, 2 + i])[part]
            scores = {}
            for j in range(5):
                if 0 <= 2 + i - j <= 3:
                    r = (attention.distance_key.weight @ sinusoids(torch.tensor([2 + i - j]), 8)[0])[part]
                    by_content = (query + attention.u[head, 0]) @ key[j, part]
                    scores[j] = ((by_content + (query + attention.v[head, 0]) @ r) / math.sqrt(4)).exp()
            taken = sum(score * value[j, part] for j, score in scores.items())
            expected[i, part] = taken / sum(scores.values())
    torch.testing.assert_close(attention(context, 3, positions, seen)[0], expected @ attention.out.weight.T)


# ---------------------------------------------------------------------------------------------------------------------
# The network


def test_shapes_and_memory_grow_to_their_size() -> None:
    network, ids = random_network(), torch.randint(0, 7, (3, 4))
    scores, memory = network(ids)
    assert scores.shape == (3, 4, 7) and memory.sentence.shape == (3, 4)
    _, memory = network(ids, memory)
    assert [hidden.shape for hidden in memory.hidden] == [(3, 5, 8)] * 2 and memory.sentence.shape == (3, 5)


@pytest.mark.parametrize("place", [0, 3, 8])
def test_a_later_letter_changes_nothing_before_it(place: int) -> None:
    network, ids = random_network(), torch.randint(0, 6, (1, 9))
    changed = ids.clone()
    changed[0, place] = (ids[0, place] + 1) % 6
    before, after = network(ids)[0], network(changed)[0]
    assert torch.equal(before[:, :place], after[:, :place])
    assert not torch.allclose(before[:, place], after[:, place])


def test_nothing_is_seen_beyond_memory_of_a_single_block() -> None:
    network, ids = random_network(TransformerConfig(1, 8, 2, memory=5, dropout=0.0)), torch.randint(0, 6, (1, 9))
    changed = ids.clone()
    changed[0, 0] = (ids[0, 0] + 1) % 6
    before, after = network(ids)[0], network(changed)[0]
    torch.testing.assert_close(before[:, 6:], after[:, 6:])
    assert not torch.allclose(before[:, 5], after[:, 5])


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_segments_with_memory_are_the_whole(sizes: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    network, ids = random_network(), torch.randint(0, 7, (2, sum(sizes)))
    torch.testing.assert_close(in_segments(network, ids, sizes), network(ids)[0])


def test_without_its_memory_a_segment_is_another() -> None:
    network, ids = random_network(), torch.randint(0, 6, (1, 8))
    alone = network(ids[:, 4:])[0]
    assert not torch.allclose(alone, network(ids)[0][:, 4:], atol=1e-3)


def test_a_sentence_is_the_same_alone_and_in_a_stream() -> None:
    network = random_network()
    first, second = [6, 1, 2, 3], [6, 4, 4, 0, 5]
    stream = network(torch.tensor([first + second]))[0]
    torch.testing.assert_close(stream[:, 4:], network(torch.tensor([second]))[0])


def test_no_gradient_flows_into_memory() -> None:
    network, ids = random_network(), torch.randint(0, 6, (1, 8))
    _, memory = network(ids[:, :4])
    inputs = [hidden.clone().requires_grad_() for hidden in memory.hidden]
    scores, after = network(ids[:, 4:], Memory(tuple(inputs), memory.sentence))
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(scores.sum(), inputs))  # it is looked at
    assert not any(hidden.requires_grad for hidden in (*memory.hidden, *after.hidden))


def golden_weights(arrays: numpy.lib.npyio.NpzFile) -> dict[str, Tensor]:
    """Theirs under our names: they scale the embedding, and the first third of their common projection is the query."""
    theirs = {name[7:]: torch.from_numpy(arrays[name]) for name in arrays.files if name.startswith("weight.")}
    found = {"embedding.weight": theirs["word_emb.emb_layers.0.weight"] * math.sqrt(8)}
    for number in range(2):
        here, there = f"blocks.{number}.", f"layers.{number}."
        projection = theirs[f"{there}dec_attn.qkv_net.weight"]
        found |= {
            f"{here}attention.query.weight": projection[:8],
            f"{here}attention.key_value.weight": projection[8:],
            f"{here}attention.distance_key.weight": theirs[f"{there}dec_attn.r_net.weight"],
            f"{here}attention.out.weight": theirs[f"{there}dec_attn.o_net.weight"],
            f"{here}attention.u": theirs[f"{there}dec_attn.r_w_bias"].unsqueeze(1),
            f"{here}attention.v": theirs[f"{there}dec_attn.r_r_bias"].unsqueeze(1),
        }
        for kind in ("weight", "bias"):
            found[f"{here}attention_norm.{kind}"] = theirs[f"{there}dec_attn.layer_norm.{kind}"]
            found[f"{here}feed_forward_norm.{kind}"] = theirs[f"{there}pos_ff.layer_norm.{kind}"]
            found[f"{here}feed_forward.0.{kind}"] = theirs[f"{there}pos_ff.CoreNet.0.{kind}"]
            found[f"{here}feed_forward.3.{kind}"] = theirs[f"{there}pos_ff.CoreNet.3.{kind}"]
    return found


def test_two_segments_as_hugging_face_computes_them() -> None:
    """Theirs begins with a memory of 16 zeros, which it looks at."""
    arrays = numpy.load(GOLDEN)
    network = TransformerXL(6, TransformerConfig(2, 8, 2, memory=64, dropout=0.0)).eval()
    missing = network.load_state_dict(golden_weights(arrays), strict=False).missing_keys
    assert missing == ["norm.weight", "norm.bias", "output.weight", "output.bias"]
    seen: list[Tensor] = []
    network.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    ids = torch.from_numpy(arrays["ids"])
    start = Memory((torch.zeros(2, 16, 8),) * 2, torch.zeros(2, 16, dtype=torch.long))
    _, memory = network(ids[:, :6], start)
    network(ids[:, 6:], Memory(tuple(hidden[:, -16:] for hidden in memory.hidden), memory.sentence[:, -16:]))
    torch.testing.assert_close(torch.cat(seen, dim=1), torch.from_numpy(arrays["hidden"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layers": 0}, "layers from 1 to 100"),
        ({"memory": 0}, "memory >= 1"),
        ({"channels": 12, "heads": 4}, r"twice the heads \(8\), got 12"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_impossible_networks(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**wrong)
