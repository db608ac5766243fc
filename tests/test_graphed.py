"""Graphs give what the plain recogniser and the plain step give: texts, log-probabilities, weights after many steps."""

import copy
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from fake_capture import Again, Tape
from torch import Tensor, nn

from quartznet import distributed, step
from quartznet.augment import augment_features
from quartznet.batch import Batch
from quartznet.config import AugmentSettings, BlockConfig, FeatureConfig, ModelConfig, OptimSettings, TrainSettings
from quartznet.ctc import ctc_losses, greedy_ids
from quartznet.graphed import GraphedRecogniser, Losses, TrainGraph, collapse, state_key
from quartznet.graphs import Function, Graphs, Outputs
from quartznet.keep import Memory
from quartznet.model import QuartzNet
from quartznet.optim import build_optimizer
from quartznet.recognition import recognition_loss
from quartznet.runstate import Training, TrainState
from quartznet.step import LossModule, train_step

LABELS = tuple(" abc")
BLOCKS = (
    BlockConfig(8, 5, stride=2),
    BlockConfig(8, 7, repeat=2, residual=True),
    BlockConfig(8, 5, dilation=2),
    BlockConfig(12, 1, separable=False),
)


def network(rule: str = "2.5", dropout: float = 0.0, masked: bool = True) -> QuartzNet:
    blocks = tuple(replace(block, dropout=dropout) for block in BLOCKS)
    model = QuartzNet(ModelConfig(LABELS, blocks, FeatureConfig(rule=rule, mels=16), masked))
    for module in model.modules():  # as after some training, and padding that is far from zero
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            nn.init.normal_(module.bias)
    nn.init.normal_(model.decoder.weight)
    with torch.no_grad():  # of all labels none is preferred, so it says many things
        encoded, _ = model.eval().encode(torch.randn(1, 16, 300), torch.tensor([300]))
        model.decoder.bias.copy_(-(model.decoder.weight[:, :, 0, 0] @ encoded.mean((0, 2, 3))))
    return model.train()


# ---------------------------------------------------------------------------------------------------------------------
# Collapse


def test_collapse_by_hand() -> None:
    path = torch.tensor([[4, 1, 1, 4, 1, 2], [3, 3, 3, 0, 0, 0], [4, 4, 4, 4, 4, 4]])
    log_probs = nn.functional.one_hot(path, 5).float()
    ids = collapse(log_probs, torch.tensor([6, 3, 6]), 4)
    assert ids.dtype == torch.int32 and [row[: row[-1]] for row in ids.tolist()] == [[1, 1, 2], [3], []]


def test_collapse_is_greedy_decoding() -> None:
    log_probs, lengths = torch.randn(6, 40, 4).log_softmax(2), torch.tensor([40, 1, 17, 39, 0, 25])
    found = [row[: row[-1]] for row in collapse(log_probs, lengths, 3).tolist()]
    assert found == greedy_ids(log_probs, lengths, 3)


# ---------------------------------------------------------------------------------------------------------------------
# Inference


@pytest.mark.parametrize("rule", ["0.x", "1.x", "2.5"])
def test_real_frames_are_those_of_the_plain_model_in_any_bucket(rule: str) -> None:
    model = network(rule).eval()
    recogniser = GraphedRecogniser(model, torch.float32, Again())
    graphs = Graphs(recogniser.log_probs, model.device, Again())
    with torch.inference_mode():
        for lengths in ([5000], [5000, 700, 4100], [4990, 300, 257], [300], [5100], [4000, 4800, 5056, 320]):
            signal, lengths = torch.randn(len(lengths), max(lengths)) * 0.1, torch.tensor(lengths)
            expected, frames = model.forward_features(*model.front_end.each(signal, lengths))
            padded, padded_lengths = recogniser._padded(signal, lengths)
            assert padded.shape == recogniser.bucket(*signal.shape)
            found, found_frames = graphs(padded, padded_lengths)
            assert found_frames[: len(lengths)].tolist() == frames.tolist()
            for row, count in enumerate(frames.tolist()):
                torch.testing.assert_close(found[row, :count], expected[row, :count], rtol=1e-5, atol=1e-5)
            assert recogniser.ids(signal, lengths) == greedy_ids(expected, frames, model.alphabet.blank)
    assert recogniser.graphs.recorded > 0


def test_texts_and_few_buckets() -> None:
    model = network().eval()
    recogniser = GraphedRecogniser(model, torch.float32, Again())
    for samples in (4800, 4900, 5000, 5100):
        signal, lengths = torch.randn(3, samples) * 0.1, torch.tensor([samples, samples, 900])
        log_probs, frames = model(signal, lengths)
        expected = [model.alphabet.decode(ids) for ids in greedy_ids(log_probs, frames, model.alphabet.blank)]
        assert recogniser(signal, lengths) == expected
    assert len(recogniser.graphs.entries) == 1
    assert recogniser.bucket(3, 32000) == (4, 208 * 160) and recogniser.bucket(1, 160) == (1, 16 * 160)
    assert recogniser(torch.zeros(0, 100), torch.zeros(0, dtype=torch.int64)) == []


def test_warming_up_leaves_only_replays() -> None:
    capture = Again()
    recogniser = GraphedRecogniser(network(), torch.float32, capture, most=3)
    recogniser.warm([(1, 0.3), (1, 0.301), (2, 0.3), (4, 0.5)])
    assert recogniser.graphs.recorded == 3
    warmed = capture.warmed
    recogniser(torch.randn(3, 8000) * 0.1, torch.tensor([8000, 700, 3000]))
    assert capture.warmed == warmed
    with pytest.raises(ValueError, match="4 graphs to warm, 3 may be held"):
        recogniser.warm([(1, 0.3), (1, 0.6), (1, 0.9), (1, 1.2)])


class Slow(Again):
    """Lets other threads in between the copy into the buffers and the work on them."""

    def warm(self, function: Function, inputs: Sequence[Tensor]) -> Outputs:
        time.sleep(0.002)
        return super().warm(function, inputs)


def test_threads_do_not_mix_their_clips() -> None:
    model = network().eval()
    recogniser = GraphedRecogniser(model, torch.float32, Slow())
    recogniser.graphs.warm_calls = 100
    clips = [torch.randn(1, 4000 + 16 * number) * 0.1 for number in range(6)]
    expected = [recogniser.ids(clip, torch.tensor([clip.shape[1]])) for clip in clips]
    found: dict[int, list] = {}

    def hear(number: int) -> None:
        for _ in range(3):
            found[number] = recogniser.ids(clips[number], torch.tensor([clips[number].shape[1]]))

    threads = [threading.Thread(target=hear, args=(number,)) for number in range(len(clips))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(len(clips))] == expected


def test_what_a_recogniser_refuses() -> None:
    with pytest.raises(ValueError, match="not masked and hears its padding"):
        GraphedRecogniser(network(masked=False))
    recogniser = GraphedRecogniser(network("1.x"), torch.float32)
    with pytest.raises(ValueError, match=r"signal must be \(batch, samples\)"):
        recogniser(torch.zeros(800), torch.tensor([800]))
    with pytest.raises(ValueError, match="each needs at least 257"):
        recogniser(torch.zeros(2, 800), torch.tensor([800, 256]))
    with pytest.raises(ValueError, match="must not be longer than the batch"):
        recogniser(torch.zeros(1, 800), torch.tensor([801]))


# ---------------------------------------------------------------------------------------------------------------------
# Training


def plain_ctc(log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, blank: int) -> Tensor:
    """The forward recursion in tensor operations alone: nothing looks at a value, so a tape can hold it."""
    never = -1e30
    labels = torch.stack([torch.full_like(targets, blank), targets], 2).flatten(1)
    labels = nn.functional.pad(labels, (0, 1), value=blank)  # (batch, 2 letters + 1)
    states = torch.arange(labels.shape[1], device=labels.device)
    jumps = (labels != blank) & (states > 1) & (labels != labels.roll(2, 1))
    emitted = log_probs.gather(2, labels[:, None].expand(-1, log_probs.shape[1], -1))
    alpha = torch.where(states < 2, emitted[:, 0], never)
    for frame in range(1, log_probs.shape[1]):
        one, two = (nn.functional.pad(alpha, (shift, 0), value=never)[:, : labels.shape[1]] for shift in (1, 2))
        following = torch.stack([alpha, one, torch.where(jumps, two, never)]).logsumexp(0) + emitted[:, frame]
        alpha = torch.where((frame < lengths)[:, None], following, alpha)
    ends = torch.stack([2 * target_lengths, 2 * target_lengths - 1], 1).clamp(min=0)
    losses = -alpha.gather(1, ends).logsumexp(1)
    return torch.where(losses > 1e29, 0.0, losses)


def batch_of(seed: int, lengths: list[int], letters: list[int]) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    signal = torch.randn(len(lengths), 6400, generator=generator) * 0.1
    targets = torch.randint(0, len(LABELS), (len(lengths), max(letters, default=0)), generator=generator)
    names = [f"{seed}.{row}" for row in range(len(lengths))]
    if not lengths:
        signal = torch.zeros(0, 0)
    return Batch(signal, as_int64(lengths), targets, as_int64(letters), names, names, [])


def as_int64(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def groups(steps: int) -> list[list[Batch]]:
    """Two batches a step, with other clips, lengths and texts each time; the last step is odd: one clip."""
    found = []
    for number in range(steps):
        first = batch_of(2 * number, [6400, 3000 + 100 * number], [3 + number % 2, 5])
        second = batch_of(2 * number + 1, [6000, 6400 - 50 * number, 2000], [2, 4, 1 + number % 3])
        found.append([first, second])
    return [*found, [batch_of(99, [6400], [4])]]


SETTINGS = TrainSettings(precision="fp32", optim=OptimSettings(lr=0.01, grad_clip=5.0))
AUGMENT = AugmentSettings(cutout_masks=2, cutout_time=10, cutout_freq=5)


def training_of(model: QuartzNet) -> Training:
    torch.manual_seed(5)
    optimizer = build_optimizer(model.parameters(), SETTINGS.optim)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return Training(model, optimizer, scaler, None, torch.Generator().manual_seed(7), TrainState())


def run(
    model: QuartzNet, steps: list[list[Batch]], graph: TrainGraph | None, monkeypatch: pytest.MonkeyPatch, loss=None
) -> tuple[list[float], dict[str, Tensor]]:
    """The losses and the weights of training a copy of ``model``."""
    model = copy.deepcopy(model).train()
    training, wrapped = training_of(model), LossModule(model, loss or recognition_loss(AUGMENT))
    with monkeypatch.context() as patch:
        if graph is not None:
            patch.setattr(step, "add_gradients", graph)
        reports = [train_step(training, wrapped, group, SETTINGS, len, lambda: [0.0, 0.0]) for group in steps]
    assert not any(report.problem for report in reports)
    return [report.loss_sum for report in reports], model.state_dict()


def assert_same(found: tuple, expected: tuple, tolerance: float) -> None:
    torch.testing.assert_close(torch.tensor(found[0]), torch.tensor(expected[0]), rtol=1e-5, atol=1e-5)
    for name, value in expected[1].items():
        torch.testing.assert_close(found[1][name], value, rtol=tolerance, atol=tolerance, msg=f"{name} differs")


CASES = [(Again, ctc_losses, 0.0, 0.0), (Again, ctc_losses, 0.3, 0.0), (Tape, plain_ctc, 0.0, 2e-4)]


@pytest.mark.parametrize(("form", "losses", "dropout", "tolerance"), CASES)
def test_steps_with_graphs_give_the_weights_of_steps_without(
    form: type[Again], losses: Losses, dropout: float, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, steps = network(dropout=dropout), groups(6)
    expected = run(model, steps, None, monkeypatch)
    capture = form()
    graph = TrainGraph(AUGMENT, losses, capture=capture)
    assert_same(run(model, steps, graph, monkeypatch), expected, tolerance)
    assert graph.graphs.recorded == 2 and capture.replayed == 8  # two shapes, six steps each, two of them warm
    assert capture.warmed == 2 * 2 + 1  # and the odd one


def test_bfloat16_and_a_memory_of_the_old_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "choose_precision", lambda name, device: torch.bfloat16)
    model, steps = network(), groups(4)
    memory = Memory(copy.deepcopy(model), l2sp=0.1, lwf=0.1)
    expected = run(model, steps, None, monkeypatch, recognition_loss(AUGMENT, memory))
    graph = TrainGraph(AUGMENT, memory=memory, capture=Again())
    assert_same(run(model, steps, graph, monkeypatch), expected, 1e-6)


def test_a_batch_without_clips_and_one_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    model, steps = network(), groups(4)
    steps = [[*group, batch_of(0, [], [])] for group in steps]
    expected = run(model, steps, None, monkeypatch)
    for capture in (Again(), None):
        assert_same(run(model, steps, TrainGraph(AUGMENT, capture=capture), monkeypatch), expected, 0.0)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="records on a GPU, and there is none")


@needs_gpu
def test_on_a_gpu_steps_with_graphs_give_the_weights_of_steps_without(monkeypatch: pytest.MonkeyPatch) -> None:
    model, steps, graph = network().cuda(), groups(6), TrainGraph(AUGMENT, plain_ctc)
    expected = run(model, steps, None, monkeypatch)
    assert_same(run(model, steps, graph, monkeypatch), expected, 5e-3)
    assert graph.graphs.recorded == 2


@needs_gpu
def test_on_a_gpu_texts_are_those_of_the_plain_model() -> None:
    model = network("1.x").eval().cuda()
    recogniser, signal = GraphedRecogniser(model, torch.float32), torch.randn(3, 5000) * 0.1
    lengths = torch.tensor([5000, 3000, 900])
    with torch.inference_mode():
        features = model.front_end.each(signal.cuda(), lengths.cuda())
        expected = greedy_ids(*model.forward_features(*features), model.alphabet.blank)
    for _ in range(5):
        assert recogniser.ids(signal, lengths) == expected
    assert recogniser.graphs.recorded == 1


def thawing(model: QuartzNet, graph: TrainGraph | None) -> tuple[list[float], dict[str, Tensor]]:
    """Steps with the encoder frozen, an evaluation, steps with frozen statistics, steps with all that learns."""
    model = copy.deepcopy(model).train()
    model.encoder.requires_grad_(False)
    training, wrapped = training_of(model), LossModule(model, recognition_loss(AUGMENT))
    losses = []
    for number, group in enumerate(groups(12)[:-1]):
        if number == 4:
            model.eval()
            model(group[0].signal, group[0].signal_lengths)
            model.train()
        if number == 5:
            model.encoder.blocks[0].layers[0].norm.eval()
        if number == 8:
            model.requires_grad_(True)
        losses.append(train_step(training, wrapped, group, SETTINGS, len, lambda: [0.0, 0.0]).loss_sum)
    return losses, {**model.state_dict(), "decay": sum(parameter.sum() for parameter in model.parameters())}


def test_no_stale_graph_after_a_thaw_or_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    model, capture = network(), Tape()
    expected = thawing(model, None)
    graph = TrainGraph(AUGMENT, plain_ctc, capture=capture)
    monkeypatch.setattr(step, "add_gradients", graph)
    assert_same(thawing(model, graph), expected, 5e-4)
    assert graph.graphs.recorded == 6  # two shapes: frozen, with frozen statistics, all


def test_what_no_gradient_reaches_keeps_none() -> None:
    model = network().train()
    model.unused = nn.Parameter(torch.ones(3))
    training, graph = training_of(model), TrainGraph(AUGMENT, capture=Again())
    for group in groups(5):
        graph(training, LossModule(model, recognition_loss(AUGMENT)), group, torch.float32, 5.0)
        assert model.unused.grad is None and model.decoder.bias.grad is graph.gradients[model.decoder.bias]
        training.optimizer.zero_grad(set_to_none=True)


def test_losses_are_not_those_of_the_next_replay() -> None:
    model = network().train()
    training, graph = training_of(model), TrainGraph(AUGMENT, capture=Again())
    wrapped = LossModule(model, recognition_loss(AUGMENT))
    for group in groups(5):
        losses, names = graph(training, wrapped, group, torch.float32, 5.0)
        assert losses.dtype == torch.float64 and losses.shape == (len(names),) and (losses > 0).all()


def test_torchs_own_loss_cannot_be_taped_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """As on a GPU, where it waits for the device. The step is right all the same."""
    model = network().train()
    training, graph = training_of(model), TrainGraph(AUGMENT, ctc_losses, capture=Tape())
    group = groups(1)[0][:1]
    found = []
    for _ in range(4):
        torch.manual_seed(1)  # dither
        training.generator.manual_seed(1)  # masks
        losses, _ = graph(training, LossModule(model, recognition_loss(AUGMENT)), group, torch.float32, 2.0)
        found.append(losses)
        torch.testing.assert_close(losses, found[0])
    assert len(caplog.records) == 1 and "no CUDA graph for" in caplog.text
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    training.optimizer.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    training.generator.manual_seed(1)
    graph(training, LossModule(model, recognition_loss(AUGMENT)), group, torch.float32, 2.0)
    for parameter, four in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(4 * parameter.grad, four, rtol=1e-4, atol=1e-5)


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(ValueError, match="for one process"):
        TrainGraph(AUGMENT)(training_of(network()), nn.Identity(), [], torch.float32, 1.0)


def test_what_changes_the_key() -> None:
    model = network()
    key = state_key(model)
    assert key == state_key(model)
    changes = [
        lambda: model.eval(),
        lambda: model.train(),
        lambda: model.encoder.blocks[0].requires_grad_(False),
        lambda: model.encoder.blocks[1].layers[0].norm.eval(),
        lambda: setattr(model.decoder, "bias", nn.Parameter(torch.zeros(len(LABELS) + 1))),
    ]
    seen = set()
    for change in changes:
        change()
        seen.add(state_key(model))
    assert len(seen) == 5


def test_masks_are_drawn_outside_as_without_graphs() -> None:
    """The same numbers in the same order, whether replayed or not."""
    model = network().train()
    training, graph = training_of(model), TrainGraph(AUGMENT, capture=Again())
    reference = torch.Generator().manual_seed(7)
    for group in groups(4):
        graph(training, LossModule(model, recognition_loss(AUGMENT)), group, torch.float32, 5.0)
        for batch in group:
            features, lengths = model.features(batch.signal, batch.signal_lengths)
            augment_features(features, lengths, AUGMENT, reference)
        assert torch.equal(training.generator.get_state(), reference.get_state())
