"""CUDA graphs on a CPU, for tests: as forgetful as the real ones, and as literal.

``Again`` "replays" by calling the function once more. ``Tape`` writes every operation down with the very tensors that
it read and wrote, backward pass included, and repeats those: what Python computed meanwhile is frozen in it, as in a
CUDA graph, and a look at a value fails. Both spoil the results of all other recordings whenever one is replayed, as the
shared pool of memory may.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from quartznet.graphs import Capture, Function, Outputs


class Again(Capture):
    """Records nothing and calls the function. ``warmed`` and ``replayed`` count, ``error`` makes recordings fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.warmed = self.replayed = self.tried = 0
        self.results: list[Outputs] = []

    def warm(self, function: Function, inputs: Sequence[Tensor]) -> Outputs:
        self.warmed += 1
        return function(*inputs)

    def record(self, function: Function, inputs: Sequence[Tensor]) -> Callable[[], Outputs]:
        self.tried += 1
        if self.error is not None:
            raise self.error
        place: list[Outputs] = []

        def replay() -> Outputs:
            found = function(*inputs)
            if not place:
                place.append(tuple(map(torch.clone, found)) if isinstance(found, tuple) else found.clone())
                self.results.append(place[0])
            for kept, new in zip(tree_leaves(place[0]), tree_leaves(found), strict=True):
                kept.copy_(new)
            return self._replayed(place[0])

        return replay

    def memory(self) -> tuple[int, int]:
        return 1_000_000 * len(self.results), 2_000_000 * len(self.results)

    def _replayed(self, outputs: Outputs) -> Outputs:
        self.replayed += 1
        for other in self.results:
            if other is not outputs:
                for tensor in tree_leaves(other):
                    tensor.fill_(-77)
        return outputs


class _Recorder(TorchDispatchMode):
    """Runs operations and keeps them; ``before`` holds the memory that was there already, as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []
        self.own: set[int] = set()
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten._ctc_loss):  # both wait on a GPU
            raise RuntimeError("operation not permitted when stream is capturing")
        kwargs = kwargs or {}
        for tensor in self._tensors((args, kwargs)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self.own and storage._cdata not in self.before:
                self.before[storage._cdata] = (storage, storage.clone())
        outputs = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, outputs))
        for tensor in self._tensors(outputs):
            if tensor.untyped_storage()._cdata not in self.before:
                self.own.add(tensor.untyped_storage()._cdata)
        return outputs

    @staticmethod
    def _tensors(tree: object) -> list[Tensor]:
        return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]

    def undo(self) -> None:
        for storage, content in self.before.values():
            storage.copy_(content)

    def repeat(self) -> None:
        for func, args, kwargs, outputs in self.calls:
            found = func(*args, **kwargs)
            if not any(result.alias_info for result in func._schema.returns):  # views and in-place work are done
                for kept, new in zip(self._tensors(outputs), self._tensors(found), strict=True):
                    kept.copy_(new)


class Tape(Again):
    """Repeats operations instead of the function."""

    def record(self, function: Function, inputs: Sequence[Tensor]) -> Callable[[], Outputs]:
        self.tried += 1
        recorder, random = _Recorder(), torch.get_rng_state()
        try:
            with recorder:
                outputs = function(*inputs)
        finally:
            recorder.undo()
            torch.set_rng_state(random)
        self.results.append(outputs)

        def replay() -> Outputs:
            with torch.no_grad():
                recorder.repeat()
            return self._replayed(outputs)

        return replay
