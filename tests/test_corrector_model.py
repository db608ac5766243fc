"""The corrector's network: attention against loops, padding, causality, the cache, one table for all."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bert import SPECIAL, randomise, tiny_config, tiny_corrector, tiny_tokenizer
from torch import Tensor

from postcorrect.config import CorrectorConfig, DropoutConfig, StackConfig
from postcorrect.model import Attention, Corrector, Encoder, FeedForward

VOCABULARY = 21


def network(**changes: object) -> Corrector:
    return tiny_corrector(tiny_config(VOCABULARY))


def tokens(*shape: int) -> Tensor:
    return torch.randint(5, VOCABULARY, shape)


# ---------------------------------------------------------------------------------------------------------------------
# Sub-layers


def attention_by_loops(layer: Attention, x: Tensor, context: Tensor, seen: Tensor) -> Tensor:
    """One query, one head, one key at a time; ``seen`` (queries, keys)."""
    size = x.shape[1] // layer.heads
    rows = []
    for position, query in enumerate(layer.query(x)):
        heads = []
        for head in range(layer.heads):
            part = slice(head * size, (head + 1) * size)
            keys, values = layer.key(context)[:, part], layer.value(context)[:, part]
            scores = [query[part] @ key / size**0.5 for key in keys]
            powers = [score.exp() * seen[position, index] for index, score in enumerate(scores)]
            heads.append(sum(power / sum(powers) * value for power, value in zip(powers, values, strict=True)))
        rows.append(x[position] + layer.out(torch.cat(heads)))
    centred = torch.stack(rows) - torch.stack(rows).mean(1, keepdim=True)
    scaled = centred / (centred.square().mean(1, keepdim=True) + layer.norm.eps).sqrt()
    return scaled * layer.norm.weight + layer.norm.bias


def test_attention_is_the_formula() -> None:
    config = tiny_config()
    layer = Attention(config, config.decoder).eval()
    randomise(layer)
    x, context = torch.randn(1, 3, 8), torch.randn(1, 4, 8)
    seen = torch.tensor([[1, 0, 0, 1], [1, 1, 1, 1], [0, 1, 0, 0]], dtype=torch.bool)
    found = layer(x, layer.keys_values(context), seen)
    torch.testing.assert_close(found[0], attention_by_loops(layer, x[0], context[0], seen))


def test_softmax_is_in_fp32_even_if_queries_and_keys_are_not() -> None:
    """Of 2,000 equal keys each gets 1/2000; summed in bfloat16 one by one, the weights would stop to grow at 1/8."""
    config = tiny_config()
    layer = Attention(config, config.decoder).eval().to(torch.bfloat16)
    x = torch.ones(1, 1, 8, dtype=torch.bfloat16)
    keys, values = layer.keys_values(x.expand(1, 2000, 8))
    rounded = layer(x, (keys, values), None)
    exact = layer.float()(x.float(), (keys.float(), values.float()), None)
    torch.testing.assert_close(rounded.float(), exact, rtol=0.02, atol=0.02)  # three digits of bfloat16


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_the_bend_of_the_feed_forward_layer(activation: str) -> None:
    config = CorrectorConfig(200, 4, 1, 6, activation=activation)
    layer = FeedForward(config, StackConfig(norm_epsilon=0.1)).eval()
    x = torch.randn(1, 2, 4) * 2
    inner = layer.inner(x)
    bends = {
        "gelu": inner * 0.5 * (1 + torch.erf(inner / 2**0.5)),
        "gelu_new": inner * 0.5 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (inner + 0.044715 * inner**3))),
        "relu": inner.clamp(min=0),
    }
    expected = torch.nn.functional.layer_norm(x + layer.out(bends[activation]), (4,), eps=0.1)
    torch.testing.assert_close(layer(x), expected)
    assert not torch.equal(bends["gelu"], bends["gelu_new"])


# ---------------------------------------------------------------------------------------------------------------------
# Encoder and decoder


@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 9), padding=st.integers(0, 5), seed=st.integers(0, 99))
def test_padding_changes_nothing(length: int, padding: int, seed: int) -> None:
    torch.manual_seed(seed)
    corrector, source, target = network(), tokens(2, length), tokens(2, 4)
    whole = torch.ones(2, length, dtype=torch.bool)
    padded, mask = torch.cat([source, tokens(2, padding)], dim=1), torch.nn.functional.pad(whole, (0, padding))
    alone, together = corrector.encode(source, whole), corrector.encode(padded, mask)
    torch.testing.assert_close(together[:, :length], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(corrector(padded, mask, target), corrector(source, whole, target), rtol=1e-4, atol=1e-5)


def test_the_decoder_sees_the_past_only() -> None:
    corrector, source, target = network(), tokens(1, 5), tokens(1, 6)
    mask = torch.ones(1, 5, dtype=torch.bool)
    before = corrector(source, mask, target)
    target[0, 3] = 4
    after = corrector(source, mask, target)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert not torch.isclose(after[:, 3:], before[:, 3:]).all(2).any()


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4), copies=st.integers(1, 3), seed=st.integers(0, 99))
def test_cached_equals_uncached(sizes: list[int], copies: int, seed: int) -> None:
    """In pieces of any size, and with several texts for each source that share its keys."""
    torch.manual_seed(seed)
    corrector, source, target = network(), tokens(2, 5), tokens(2 * copies, sum(sizes))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    hidden = corrector.encode(source, mask)
    cache, pieces = corrector.start(hidden, mask, copies), []
    for piece in target.split(sizes, dim=1):
        logits, cache = corrector.step(piece, cache)
        pieces.append(logits)
    assert cache.length == sum(sizes) and len(cache.source[0][0]) == 2
    own = hidden.repeat_interleave(copies, dim=0), mask.repeat_interleave(copies, dim=0)
    torch.testing.assert_close(torch.cat(pieces, dim=1), corrector.decode(target, *own), rtol=1e-4, atol=1e-5)


def test_a_cache_follows_its_rows_and_sources() -> None:
    corrector, source = network(), tokens(3, 5)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 4 + [False]])
    hidden, first, second = corrector.encode(source, mask), tokens(6, 2), tokens(6, 1)
    _, cache = corrector.step(first, corrector.start(hidden, mask, copies=2))
    rows = torch.tensor([1, 1, 2, 3, 5, 4])
    found = corrector.step(second, cache.take_rows(rows))[0][:, 0]
    by_source = torch.arange(3).repeat_interleave(2)
    written = torch.cat([first[rows], second], dim=1)
    expected = corrector.decode(written, hidden[by_source], mask[by_source])[:, -1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    last = cache.take_rows(rows).take_sources(torch.tensor([2]), torch.tensor([4, 5]))
    torch.testing.assert_close(corrector.step(second[4:], last)[0][:, 0], expected[4:], rtol=1e-4, atol=1e-5)


def test_tokens_have_one_table_and_every_weight_learns() -> None:
    corrector, source = network(), tokens(2, 5)
    mask = torch.ones(2, 5, dtype=torch.bool)
    shapes = [tuple(parameter.shape) for parameter in corrector.parameters()]
    assert shapes.count((24, 8)) == 1  # 21 tokens, up to a multiple of 8
    corrector(source, mask, tokens(2, 3)).square().sum().backward()
    without = [name for name, value in corrector.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == [name for name in without if name.endswith("key.bias")]  # softmax does not see them


def test_dropout_is_in_every_place_of_both_halves() -> None:
    source, target, mask = tokens(1, 5), tokens(1, 4), torch.ones(1, 5, dtype=torch.bool)
    still = DropoutConfig.everywhere(0.0)
    for half in ("encoder", "decoder"):
        for place in vars(still):
            stacks = {name: StackConfig(1, 1e-5, still) for name in ("encoder", "decoder")}
            stacks[half] = StackConfig(1, 1e-5, DropoutConfig(**{**vars(still), place: 0.5}))
            corrector = Corrector(CorrectorConfig(VOCABULARY, 8, 2, 12, special=SPECIAL, **stacks)).train()
            randomise(corrector)
            first, second = corrector(source, mask, target), corrector(source, mask, target)
            assert not torch.equal(first, second), (half, place)
            corrector.eval()
            assert torch.equal(corrector(source, mask, target), corrector(source, mask, target))
    corrector = Corrector(CorrectorConfig(VOCABULARY, 8, 2, 12, special=SPECIAL, encoder=stacks["encoder"],
                                          decoder=stacks["encoder"])).train()  # fmt: skip
    assert torch.equal(corrector(source, mask, target), corrector(source, mask, target))


def test_it_begins_small_with_rows_of_zeros_too_many() -> None:
    corrector = Corrector(CorrectorConfig(VOCABULARY, 64, 2, 64, special=SPECIAL))
    table = corrector.encoder.tables.tokens.weight
    assert 0.015 < table[:VOCABULARY].std() < 0.025 and not table[VOCABULARY:].any()


# ---------------------------------------------------------------------------------------------------------------------
# Bad input


def test_bad_input_is_named(tmp_path) -> None:
    corrector = tiny_corrector(tiny_config(VOCABULARY, positions=6))
    whole = torch.ones(1, 7, dtype=torch.bool)
    with pytest.raises(ValueError, match="a text has 7 tokens, this network has 6 positions; split or skip it"):
        corrector.encode(tokens(1, 7), whole)
    hidden = corrector.encode(tokens(1, 6), whole[:, :6])
    _, cache = corrector.step(tokens(1, 6), corrector.start(hidden, whole[:, :6]))
    with pytest.raises(ValueError, match="a text has 7 tokens"):
        corrector.step(tokens(1, 1), cache)
    for mask in (torch.ones(1, 6), torch.ones(6, dtype=torch.bool), torch.ones(2, 6, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"mask must be boolean of shape \(1, 6\), got torch"):
            Encoder(corrector.config)(tokens(1, 6), mask)
    with pytest.raises(ValueError, match=r"the tokenizer has 65 tokens with .* the network 21"):
        Corrector(tiny_config(VOCABULARY), tiny_tokenizer(tmp_path))
