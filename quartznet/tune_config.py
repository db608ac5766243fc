"""Settings of fine-tuning: which weights learn, what is added to the network, how it keeps what it knew.

Part of ``TrainSettings`` (``quartznet.config``), in a file of their own because they are a subject of their own. Like
all settings they refuse what is impossible themselves.
"""

import re
from dataclasses import dataclass

LARGEST = 4096  # rank or bottleneck; a stranger's file may ask for any number, and memory is taken before it fails


@dataclass(frozen=True)
class InsertConfig:
    """What is added to a plain network and goes into its checkpoint, so that it can be built again."""

    kind: str = "none"  # none | lora (quartznet/lora.py) | adapters (quartznet/block_adapters.py)
    rank: int = 8  # of LoRA's two factors
    alpha: float = 16.0  # LoRA's correction weighs alpha / rank
    dropout: float = 0.0  # before LoRA's first factor, while training
    size: int = 32  # of the adapters' bottleneck

    def __post_init__(self) -> None:
        if self.kind not in ("none", "lora", "adapters"):
            raise ValueError(f"kind must be none, lora or adapters, got {self.kind!r}")
        if max(self.rank, self.size) > LARGEST:
            raise ValueError(f"rank and size can be at most {LARGEST}, got {self.rank} and {self.size}")
        if min(self.rank, self.size) < 1 or self.alpha <= 0 or not 0.0 <= self.dropout < 1.0:
            raise ValueError(
                "rank and size must be at least 1, alpha above 0 and dropout in [0, 1), "
                f"got {self.rank}, {self.size}, {self.alpha:g} and {self.dropout:g}"
            )


@dataclass(frozen=True)
class TuneSettings:
    """Which weights learn, and when (quartznet/finetune.py). The output layer always does."""

    train: str = "all"  # all | head | bn | top-K (its last K blocks) | adapters | lora: what of the encoder learns
    batchnorm: str = "auto"  # full | affine | stats | frozen: whether scale and shift learn, whether statistics move
    unfreeze_every: int = 0  # epochs between two thaws, the top block first; 0: all blocks at once
    unfreeze_blocks: int = 1  # blocks that each thaw adds
    layer_decay: float = 1.0  # a block's rate is this times the rate of the block above it
    lora_rank: int = 8  # of LoRA's two factors
    lora_alpha: float = 16.0  # LoRA's correction weighs alpha / rank
    lora_dropout: float = 0.0  # before LoRA's first factor
    adapter_size: int = 32  # of the bottleneck after each block

    def __post_init__(self) -> None:
        if not re.fullmatch("all|head|bn|adapters|lora|top-[1-9][0-9]{0,3}", self.train):
            raise ValueError(f"tune.train must be all, head, bn, adapters, lora or top-K such as top-6: {self.train!r}")
        if self.batchnorm not in ("auto", "full", "affine", "stats", "frozen"):
            raise ValueError(f"tune.batchnorm must be auto, full, affine, stats or frozen, got {self.batchnorm!r}")
        if self.unfreeze_every < 0 or self.unfreeze_blocks < 1 or not 0.0 < self.layer_decay <= 1.0:
            raise ValueError("tune needs unfreeze_every >= 0, unfreeze_blocks >= 1 and layer_decay in (0, 1]")
        if self.unfreeze_every and self.train != "all" and not self.train.startswith("top-"):
            raise ValueError(f"tune.unfreeze_every thaws blocks, so it needs tune.train all or top-K, not {self.train}")
        if self.train == "bn" and self.batchnorm in ("stats", "frozen"):
            raise ValueError(f"tune.train bn lets batch norm learn and tune.batchnorm {self.batchnorm} forbids it")
        self.inserted  # noqa: B018 - checks the four sizes

    @property
    def inserted(self) -> InsertConfig:
        """What ``train`` adds to the network."""
        kind = self.train if self.train in ("lora", "adapters") else "none"
        return InsertConfig(kind, self.lora_rank, self.lora_alpha, self.lora_dropout, self.adapter_size)


@dataclass(frozen=True)
class KeepSettings:
    """How a network keeps what it knew before (quartznet/keep.py, data/replay.py)."""

    replay: tuple[str, ...] = ()  # MANIFEST:SHARE; old speech that makes up this share of the hours of every epoch
    watch: tuple[str, ...] = ()  # NAME=MANIFEST; sets scored before, during and after, such as the old language's test
    lang: str | None = None  # text rules of replay and watch; None: the language of init
    l2sp: float = 0.0  # pull towards init: this / 2 times the squared distance of the encoder's weights
    lwf: float = 0.0  # weight of the divergence between what the old output layer says and what it said before
    temperature: float = 1.0  # of that divergence; above 1 the unlikely letters count more

    def __post_init__(self) -> None:
        if self.l2sp < 0 or self.lwf < 0 or self.temperature <= 0:
            raise ValueError(
                "keep needs l2sp >= 0, lwf >= 0 and temperature > 0, "
                f"got {self.l2sp:g}, {self.lwf:g} and {self.temperature:g}"
            )
        shares = [share for _, share in self.replayed]
        if sum(shares) > 0.9:
            raise ValueError(f"keep.replay: the shares add up to {sum(shares):g}; a tenth must be left for what is new")
        names = [name for name, _ in self.watched]
        if len(set(names)) < len(names):
            raise ValueError(f"keep.watch: every set needs a name of its own, got {', '.join(names)}")

    @property
    def replayed(self) -> list[tuple[str, float]]:
        """Manifest and share of each entry of ``replay``; raises ValueError for one that says neither."""
        pairs = []
        for entry in self.replay:
            path, _, share = entry.rpartition(":")
            if not path or not re.fullmatch(r"0?\.[0-9]+", share) or float(share) == 0:
                raise ValueError(f"keep.replay needs MANIFEST:SHARE with a share between 0 and 1, got {entry!r}")
            pairs.append((path, float(share)))
        return pairs

    @property
    def watched(self) -> list[tuple[str, str]]:
        """Name and manifest of each entry of ``watch``; raises ValueError for one without both."""
        pairs = [tuple(entry.partition("=")[::2]) for entry in self.watch]
        if not all(re.fullmatch(r"[\w-]{1,10}", name) and path for name, path in pairs):
            raise ValueError(
                "keep.watch needs NAME=MANIFEST, NAME of up to 10 letters, digits and dashes, "
                f"got {', '.join(self.watch)}"
            )
        return pairs


@dataclass(frozen=True)
class SequenceSettings:
    """Training on the expected error rate, quartznet/sequence.py; for networks that already read well."""

    method: str = "none"  # none: CTC alone | mwer: over the n best texts | policy: over sampled paths
    weight: float = 1.0  # of the expected error rate (a fraction, not per cent)
    ctc_weight: float = 0.01  # of CTC, whose gradient is some 50 times larger; it keeps the texts from drifting
    candidates: int = 4  # texts, or sampled paths, of each utterance
    beam: int = 8  # mwer: texts that the search keeps after each frame
    temperature: float = 1.0  # divides log probabilities: below 1 the likely texts or labels count more, above 1 less
    unit: str = "word"  # word | character: what an error is counted in
    baseline: str = "leave-one-out"  # policy: leave-one-out | greedy: the error rate that a path is compared with
    include_reference: bool = False  # mwer: add the reference to the texts where the search did not find it

    def __post_init__(self) -> None:
        if self.method not in ("none", "mwer", "policy"):
            raise ValueError(f"sequence.method must be none, mwer or policy, got {self.method!r}")
        if self.unit not in ("word", "character"):
            raise ValueError(f"sequence.unit must be word or character, got {self.unit!r}")
        if self.baseline not in ("leave-one-out", "greedy"):
            raise ValueError(f"sequence.baseline must be leave-one-out or greedy, got {self.baseline!r}")
        if self.weight <= 0 or self.ctc_weight < 0 or self.temperature <= 0:
            raise ValueError(
                "sequence needs weight > 0, ctc_weight >= 0 and temperature > 0, "
                f"got {self.weight:g}, {self.ctc_weight:g} and {self.temperature:g}"
            )
        if self.candidates < 2:
            raise ValueError(f"sequence.candidates are compared and must be at least 2, got {self.candidates}")
        if self.method == "mwer" and self.beam < self.candidates:
            raise ValueError(
                f"sequence.beam {self.beam} cannot give {self.candidates} candidates; make it at least as large"
            )
