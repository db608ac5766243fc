"""The recogniser and the training step as CUDA graphs (``quartznet.graphs``).

``GraphedRecogniser``: waveforms -> texts with one launch between the copy in and the copy out. Signals are padded to
few lengths and batches to few sizes, so that few graphs serve all. A masked network gives a clip the same answer in
any padding, and ``LogMel.rows`` gives it the same features, by every rule, so nothing depends on the company.

``TrainGraph``: forward, loss and backward of one batch in place of ``quartznet.step.add_gradients``. Front end and
augmentation stay outside, because they draw from a generator on the CPU, and so does all that must look at a number:
the finite check, clipping, the optimiser. Batches are *not* padded to few shapes: batch norm averages over padding too,
so the padding is part of the training. Only the targets are.

The surprise: to a graph a gradient is an address. A gradient that is None when the step begins would be *replaced* by
each replay, not added to, so gradients live in memory that stays, and are set to zero where the loop had dropped them.
Only those: a parameter that no gradient reaches keeps None, since the optimiser would let a zero decay.

Neither has been run on a GPU yet.
"""

import threading
from collections.abc import Hashable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quartznet import distributed
from quartznet.augment import augment_features
from quartznet.batch import Batch
from quartznet.config import AugmentSettings
from quartznet.ctc import Losses, ctc_losses, emissions
from quartznet.graphs import Capture, Graphs
from quartznet.keep import Memory
from quartznet.model import QuartzNet, rounded_frames
from quartznet.runstate import Training

# ---------------------------------------------------------------------------------------------------------------------
# Inference


def collapse(log_probs: Tensor, lengths: Tensor, blank: int) -> Tensor:
    """``quartznet.ctc.greedy_ids`` without a look at a value.

    Args:
        log_probs: (batch, time, labels).
        lengths: (batch,), valid frames, on the same device.

    Returns:
        (batch, time + 1) int32: a row's labels from its beginning on, and in the last column how many they are.
    """
    path = log_probs.argmax(2)
    emits, time = emissions(path, lengths, blank), path.shape[1]
    places = torch.where(emits, emits.cumsum(1) - 1, time)  # what is not emitted is thrown into the last column
    ids = path.new_zeros(len(path), time + 1).scatter_(1, places, path)
    ids[:, time] = emits.sum(1)
    return ids.int()


class GraphedRecogniser:
    """Greedy texts of padded waveforms, for a server: any number of threads may call it, one is served at a time.

    For each call: two copies in (signals, lengths), one launch, one copy of whole numbers out, and one wait, for that.
    """

    def __init__(
        self, model: QuartzNet, dtype: torch.dtype = torch.bfloat16, capture: Capture | None = None, most: int = 32
    ) -> None:
        """A copy of ``model`` as ``for_inference(dtype)`` makes it.

        Args:
            most: graphs that are held; each is of one length and one size of batch.

        Raises:
            ValueError: for a network that is not masked: what it hears depends on the padding.
        """
        if not model.config.masked:
            raise ValueError("this network is not masked and hears its padding; call model(signal, lengths) instead")
        self.model = model.for_inference(dtype)
        self.graphs = Graphs(self._ids, model.device, capture, most)
        self.lock = threading.Lock()

    def __call__(self, signal: Tensor, signal_lengths: Tensor) -> list[str]:
        """The texts of clips; arguments and errors as ``ids``."""
        return [self.model.alphabet.decode(row) for row in self.ids(signal, signal_lengths)]

    @torch.inference_mode()
    def ids(self, signal: Tensor, signal_lengths: Tensor) -> list[list[int]]:
        """The labels of clips.

        Args:
            signal: (batch, samples), float in [-1, 1] at the model's rate, on the host or the device; what lies beyond
                a clip's length does not matter.
            signal_lengths: (batch,), samples, on the host.

        Raises:
            ValueError: for other shapes, for lengths on the device, and for a clip shorter than the front end needs.
        """
        self._check(signal, signal_lengths)
        if len(signal) == 0:
            return []
        with self.lock:
            found = self._to_host(self.graphs(*self._padded(signal, signal_lengths)))
        return [row[: row[-1]] for row in found[: len(signal)].tolist()]

    def bucket(self, rows: int, samples: int) -> tuple[int, int]:
        """The rows and samples of the graph that serves a batch: the next power of two, and at most an eighth more."""
        hop = self.model.config.features.hop
        return 1 << (rows - 1).bit_length(), rounded_frames(-(-samples // hop)) * hop

    def warm(self, batches: Iterable[tuple[int, float]]) -> None:
        """Records the graphs of batches (clips, seconds of the longest) before anybody waits for an answer.

        Raises:
            ValueError: when these are more graphs than may be held.
        """
        rate = self.model.config.features.sample_rate
        buckets = sorted({self.bucket(rows, round(seconds * rate)) for rows, seconds in batches})
        if len(buckets) > self.graphs.most:
            raise ValueError(f"{len(buckets)} graphs to warm, {self.graphs.most} may be held; ask for fewer, or most=")
        for rows, samples in buckets:
            for _ in range(self.graphs.warm_calls + 1):
                self.ids(torch.zeros(rows, samples), torch.full((rows,), samples))

    def log_probs(self, signal: Tensor, signal_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What is recorded, up to the network's output: as ``QuartzNet.forward``, every clip as if it were alone."""
        return self.model.forward_features(*self.model.front_end.rows(signal, signal_lengths))

    def _ids(self, signal: Tensor, signal_lengths: Tensor) -> Tensor:
        return collapse(*self.log_probs(signal, signal_lengths), self.model.alphabet.blank)

    def _check(self, signal: Tensor, signal_lengths: Tensor) -> None:
        if signal.dim() != 2 or signal_lengths.shape != signal.shape[:1] or signal_lengths.device.type != "cpu":
            raise ValueError(
                "signal must be (batch, samples) and signal_lengths (batch,) on the CPU, got "
                f"{tuple(signal.shape)} and {tuple(signal_lengths.shape)} on {signal_lengths.device}"
            )
        shortest = self.model.front_end.shortest
        if len(signal) and not shortest <= int(signal_lengths.min()) <= int(signal_lengths.max()) <= signal.shape[1]:
            raise ValueError(
                f"clips of {int(signal_lengths.min())} to {int(signal_lengths.max())} samples in {signal.shape[1]}; "
                f"each needs at least {shortest}, and must not be longer than the batch"
            )

    def _padded(self, signal: Tensor, signal_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """To the size of a graph; rows without a clip are as short as may be, and silent."""
        rows, samples = self.bucket(*signal.shape)
        pin = self.model.device.type == "cuda"
        padded = torch.zeros(rows, samples, device=signal.device, pin_memory=pin and signal.device.type == "cpu")
        padded[: len(signal), : signal.shape[1]] = signal
        lengths = torch.full((rows,), self.model.front_end.shortest, pin_memory=pin)
        lengths[: len(signal)] = signal_lengths
        return padded, lengths

    @staticmethod
    def _to_host(ids: Tensor) -> Tensor:
        if ids.device.type != "cuda":
            return ids
        host = torch.empty(ids.shape, dtype=ids.dtype, pin_memory=True)
        host.copy_(ids, non_blocking=True)
        torch.cuda.current_stream(ids.device).synchronize()  # the one wait
        return host


# ---------------------------------------------------------------------------------------------------------------------
# Training


def state_key(model: nn.Module) -> Hashable:
    """What a recording takes for granted: where weights lie, which of them learn, and what is in training mode.

    Batch norms are modules, so frozen statistics are part of it. One walk with a list instead of ``modules()``,
    ``parameters()`` and ``buffers()``, which take three times as long; every batch asks for this.
    """
    found, waiting = [], [model]
    while waiting:
        module = waiting.pop()
        found.append(module.training)
        found += [
            (id(tensor), tensor.data_ptr(), tensor.requires_grad)
            for tensors in (module._parameters, module._buffers)
            for tensor in tensors.values()
            if tensor is not None
        ]
        waiting += [child for child in module._modules.values() if child is not None]
    return tuple(found)


class TrainGraph:
    """In place of ``quartznet.step.add_gradients``: the same call, the same losses, names and gradients.

    For one process, for ``recognition_loss`` without ``SequenceSettings`` (those look at texts), and for a ``losses``
    that does not wait for the device. With PyTorch's own, which does, it warns and runs as without graphs.
    """

    def __init__(
        self,
        augment: AugmentSettings,
        losses: Losses = ctc_losses,
        memory: Memory | None = None,
        capture: Capture | None = None,
        most: int = 64,
    ) -> None:
        """``augment`` and ``memory`` as for ``recognition_loss``; ``most`` graphs are held.

        A corpus at three speeds makes 40 to 90 shapes of batches, most of them where batches are small; 32 graphs
        would forget some in every epoch and record them again.
        """
        self.augment, self.losses, self.memory = augment, losses, memory
        self.capture, self.most = capture, most
        self.graphs: Graphs | None = None  # made when the device is known
        self.training: Training | None = None  # these two are what _add reads
        self.dtype = torch.float32
        self.gradients: dict[nn.Parameter, Tensor] = {}  # where they stay from step to step
        self.reached: dict[Hashable, list[nn.Parameter]] = {}  # by what state_key says

    def __call__(
        self, training: Training, wrapped: nn.Module, batches: Sequence[Batch], dtype: torch.dtype, utterances: float
    ) -> tuple[Tensor, list[str]]:
        """Forward and backward over all batches; returns every utterance's loss and name.

        Raises:
            ValueError: with several processes, whose gradients are exchanged during the backward pass.
        """
        if distributed.world_size() > 1:
            raise ValueError("CUDA graphs of a training step are for one process; use quartznet.step.add_gradients")
        model = training.model
        if self.graphs is None:
            self.graphs = Graphs(self._add, model.device, self.capture, self.most)
        self.training, self.dtype = training, dtype
        losses, names = [], []
        for batch in batches:
            batch = batch.to(model.device).at_speed()
            if len(batch):
                losses.append(self._replay(batch, 1 / utterances).to(torch.float64, copy=True))
            else:
                loss = wrapped(batch, training.generator)
                training.scaler.scale(loss.float().sum()).backward()
                losses.append(loss.detach().double())
            names += batch.names
        return torch.cat(losses), names

    def _replay(self, batch: Batch, weight: float) -> Tensor:
        model = self.training.model
        features, lengths = model.features(batch.signal, batch.signal_lengths)
        if model.training:
            features = augment_features(features, lengths, self.augment, self.training.generator)
        targets = F.pad(batch.targets, (0, self._letters(batch.targets, features) - batch.targets.shape[1]))
        scale = features.new_full((), weight)
        state = state_key(model)
        self._attach(self.reached.get(state, []))
        key = (state, self.dtype, self.training.scaler.is_enabled())
        losses = self.graphs(features, lengths, targets, batch.target_lengths, scale, key=key)
        if state not in self.reached:  # so this was no replay
            self.reached[state] = [parameter for parameter in model.parameters() if parameter.grad is not None]
            self._attach(self.reached[state])
        return losses

    def _letters(self, targets: Tensor, features: Tensor) -> int:
        """Columns of the targets: half the frames of the output, more than nearly all texts have; or few lengths."""
        usual = int(self.training.model.output_length(features.shape[2])) // 2
        return usual if targets.shape[1] <= usual else rounded_frames(targets.shape[1])

    def _attach(self, parameters: Sequence[nn.Parameter]) -> None:
        """Gradients of ``parameters`` where they stay; zero where the loop has dropped them."""
        dropped = []
        for parameter in parameters:
            stays = self.gradients.get(parameter)
            if stays is None:
                stays = self.gradients[parameter] = torch.zeros_like(parameter, requires_grad=False)
            if parameter.grad is None:
                dropped.append(stays)
            elif parameter.grad is not stays:
                stays.copy_(parameter.grad)
            parameter.grad = stays
        if dropped:
            torch._foreach_zero_(dropped)

    def _add(
        self, features: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, weight: Tensor
    ) -> Tensor:
        """What is recorded: losses (batch,), and their weighted sum's gradient added to what is there."""
        model = self.training.model
        # A cast weight that is kept from outside of the recording would never change again, so none is kept.
        with torch.autocast(features.device.type, self.dtype, enabled=self.dtype != torch.float32, cache_enabled=False):
            encoded, output_lengths = model.encode(features, lengths)
            log_probs = model.decoder(encoded)[:, : model.output_length(features.shape[2])]
            losses = self.losses(log_probs, output_lengths, targets, target_lengths, model.alphabet.blank)
            if self.memory is not None:
                losses = losses + self.memory.losses(model, encoded, features, lengths)
        self.training.scaler.scale(losses.float().sum() * weight).backward()
        return losses.detach()
