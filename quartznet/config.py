"""Every setting of the recogniser, as frozen dataclasses; ``quartznet.settings`` turns them into YAML and back.

A model is described by data, not by flags: a tuple of ``BlockConfig`` read from top to bottom. A checkpoint carries its
``ModelConfig`` and rebuilds itself from it. ``TrainSettings`` is everything a run needs besides the corpus; it is saved
as YAML beside the checkpoints and ``python train.py --config that.yaml`` runs the same training again.

On the command line the setting ``lr`` of ``optim`` is ``--optim.lr 0.01``. The surprise: impossible values are refused
here, by each dataclass itself, so that a file, a command line and a checkpoint of strangers all meet the same checks.
"""

from dataclasses import dataclass, field
from typing import Protocol

from quartznet.tune_config import KeepSettings, SequenceSettings, TuneSettings
from quartznet.waveform import Codec, Gain, NarrowBand, Noise, Room, Shift, TimeStretch, WhiteNoise

# ---------------------------------------------------------------------------------------------------------------------
# The network

MOST_WEIGHTS = 500_000_000  # 2 GB


@dataclass(frozen=True)
class BlockConfig:
    """One QuartzNet block: ``repeat`` sub-blocks of convolution, batch norm, ReLU, dropout (arXiv:1910.10261)."""

    filters: int  # output channels
    kernel_size: int  # frames; odd, so that "same" padding exists
    repeat: int = 1  # sub-blocks
    stride: int = 1  # of every sub-block
    dilation: int = 1
    dropout: float = 0.0
    residual: bool = False  # add batch_norm(1x1 conv of the block's input) before the last ReLU
    separable: bool = True  # depthwise over time, then pointwise over channels; False: one ordinary convolution
    groups: int = 1  # of the pointwise convolution; above 1 a channel shuffle follows the batch norm

    def __post_init__(self) -> None:
        for name in ("filters", "kernel_size", "repeat", "stride", "dilation", "groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd to keep the length, got {self.kernel_size}; use an odd number")
        if self.stride > 1 and self.dilation > 1:
            raise ValueError(f"stride {self.stride} and dilation {self.dilation} cannot be combined; set one to 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.residual and self.stride > 1:
            raise ValueError("a block with a residual branch must have stride 1, or the two branches differ in length")


@dataclass(frozen=True)
class FeatureConfig:
    """Log-mel front end. The defaults are NeMo's QuartzNet recipe; ``rule`` names which NeMo generation to equal."""

    sample_rate: int = 16000  # Hz
    window_size: int = 320  # samples
    hop: int = 160  # samples
    fft_size: int = 512
    mels: int = 64
    low_hertz: float = 0.0
    high_hertz: float | None = None  # None: half the sample rate
    preemphasis: float = 0.97
    dither: float = 1e-5  # standard deviation of the noise added to the waveform while training
    pad_to: int = 16  # frames are zero-padded to a multiple of this; 0: not at all
    normalize: str = "per_feature"  # per_feature | all_features | none
    rule: str = "2.5"  # 0.x: ceil(L/160) frames, reflect | 1.x: floor(L/160)+1, reflect | 2.5: floor(L/160), zeros
    periodic_window: bool = False  # Hann with denominator 320; what stft_conv: true of NeMo 0.x means

    def __post_init__(self) -> None:
        if self.rule not in ("0.x", "1.x", "2.5"):
            raise ValueError(f"features.rule must be 0.x, 1.x or 2.5, got {self.rule!r}")
        if self.normalize not in ("per_feature", "all_features", "none"):
            raise ValueError(f"features.normalize must be per_feature, all_features or none, got {self.normalize!r}")
        for name in ("sample_rate", "window_size", "hop", "fft_size", "mels"):
            if getattr(self, name) < 1:
                raise ValueError(f"features.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("window_size", "hop"):
            if getattr(self, name) > self.fft_size:
                raise ValueError(f"features.{name} {getattr(self, name)} is longer than fft_size {self.fft_size}")
        if self.fft_size % 2:  # there floor(samples / hop) + 1 would promise a frame too many
            raise ValueError(f"features.fft_size must be even, got {self.fft_size}")
        if self.fft_size > 32768 or self.mels > min(1024, self.fft_size // 2 + 1):  # a table of 134 MB at most
            raise ValueError(
                f"features.fft_size can be at most 32768 and features.mels at most 1024 and fft_size / 2 + 1, "
                f"got {self.fft_size} and {self.mels}"
            )
        highest = self.sample_rate / 2
        if not 0 <= self.low_hertz < (highest if self.high_hertz is None else self.high_hertz) <= highest:
            raise ValueError(
                f"features need 0 <= low_hertz < high_hertz <= {highest:g} (half the sample rate), "
                f"got {self.low_hertz:g} and {self.high_hertz}"
            )
        if not 0 <= self.pad_to <= 1024 or self.dither < 0:
            raise ValueError(
                f"features.pad_to must be 0 to 1024 and dither not negative, got {self.pad_to} and {self.dither}"
            )


def convolution_weights(channels: int, blocks: tuple[BlockConfig, ...]) -> int:
    """Numbers in the convolutions of blocks that read ``channels``; exact where groups divide the channels."""
    count = 0
    for block in blocks:
        time = block.kernel_size if block.separable else 0
        mixing = block.filters * (1 if block.separable else block.kernel_size)
        first = channels * time + channels * mixing // block.groups
        others = block.filters * time + block.filters * mixing // block.groups
        count += first + (block.repeat - 1) * others + (channels * block.filters if block.residual else 0)
        channels = block.filters
    return count


@dataclass(frozen=True)
class ModelConfig:
    """What rebuilds a network: front end, blocks, and the output labels (the blank comes after the last of them)."""

    labels: tuple[str, ...]
    blocks: tuple[BlockConfig, ...]
    features: FeatureConfig = field(default_factory=FeatureConfig)
    masked: bool = True  # zero padded frames before every convolution (NeMo's conv_mask)

    def __post_init__(self) -> None:
        if not self.blocks:
            raise ValueError("a model needs at least one block")
        weights = convolution_weights(self.features.mels, self.blocks)
        if weights > MOST_WEIGHTS:  # a file may ask for any number, and memory would be taken before its weights fail
            raise ValueError(
                f"blocks with {weights:,} weights are no QuartzNet, which has 19 million; {MOST_WEIGHTS:,} are possible"
            )
        if not self.labels or len(set(self.labels)) != len(self.labels):
            repeated = sorted({label for label in self.labels if self.labels.count(label) > 1})
            raise ValueError(f"labels must be a non-empty list without repeats; repeated: {repeated}")


def quartznet_blocks(body: list[tuple[int, int]], repeat: int, dropout: float = 0.0) -> tuple[BlockConfig, ...]:
    """C1, then one residual block for each ``(filters, kernel_size)`` of ``body``, then C2 and C3 (paper, table 1)."""
    first = BlockConfig(256, 33, stride=2, dropout=dropout)
    middle = [BlockConfig(filters, kernel, repeat, dropout=dropout, residual=True) for filters, kernel in body]
    last = (BlockConfig(512, 87, dilation=2, dropout=dropout), BlockConfig(1024, 1, dropout=dropout, separable=False))
    return (first, *middle, *last)


def preset_blocks(name: str) -> tuple[BlockConfig, ...]:
    """The published sizes: ``15x5`` (18.9 M parameters), ``10x5`` (12.8 M), ``5x5`` (6.7 M), ``5x3`` (6.4 M)."""
    five = [(256, 33), (256, 39), (512, 51), (512, 63), (512, 75)]
    presets = {
        "15x5": lambda: quartznet_blocks([block for block in five for _ in range(3)], 5),
        "10x5": lambda: quartznet_blocks([block for block in five for _ in range(2)], 5),
        "5x5": lambda: quartznet_blocks(five, 5),
        "5x3": lambda: quartznet_blocks([(512, 63), (512, 63), (512, 75), (512, 75), (512, 75)], 3, dropout=0.2),
        "tiny": tiny_blocks,
    }
    if name not in presets:
        raise ValueError(f"no preset {name!r}; there are {', '.join(presets)}")
    return presets[name]()


def tiny_blocks() -> tuple[BlockConfig, ...]:
    """A small network for a CPU: the one that the demo trains from scratch and that the shipped checkpoint holds.

    Kernels are a third of the published ones: most of the time of so narrow a network goes into its depthwise
    convolutions, and half a million parameters then take a step in half the time.
    """
    body = [BlockConfig(filters, kernel, 2, residual=True) for filters, kernel in ((128, 13), (192, 15), (256, 17))]
    last = (BlockConfig(256, 29, dilation=2), BlockConfig(384, 1, separable=False))
    return (BlockConfig(128, 11, stride=2), *body, *last)


# ---------------------------------------------------------------------------------------------------------------------
# A training run


@dataclass(frozen=True)
class OptimSettings:
    """The optimiser."""

    name: str = "novograd"  # novograd | adamw
    lr: float = 0.001  # the highest rate; fine-tuning wants a tenth of that from scratch
    betas: tuple[float, float] | None = None  # None: (0.95, 0.25) for novograd, (0.9, 0.98) for adamw
    eps: float = 1e-8  # keeps the division by a tiny gradient finite
    weight_decay: float = 0.001  # pull of every weight towards zero
    grad_clip: float = 0.0  # largest gradient norm; 0: no clipping
    accumulate: int = 1  # batches whose gradients are summed into one step

    def __post_init__(self) -> None:
        if self.name not in ("novograd", "adamw"):
            raise ValueError(f"optim.name must be novograd or adamw, got {self.name!r}")
        if self.lr <= 0 or self.accumulate < 1 or self.grad_clip < 0 or self.weight_decay < 0:
            raise ValueError("optim needs lr > 0, accumulate >= 1, grad_clip >= 0 and weight_decay >= 0")


@dataclass(frozen=True)
class ScheduleSettings:
    """The learning rate over the run: it warms up to optim.lr, then falls."""

    name: str = "cosine"  # cosine | polynomial | square | constant
    warmup_ratio: float = 0.12  # share of all steps in which the rate rises
    warmup_steps: int | None = None  # takes the place of the ratio
    min_lr: float = 0.0  # where the rate ends
    power: float = 1.0  # of the polynomial

    def __post_init__(self) -> None:
        if self.name not in ("cosine", "polynomial", "square", "constant"):
            raise ValueError(f"schedule.name must be cosine, polynomial, square or constant, got {self.name!r}")
        if not 0.0 <= self.warmup_ratio < 1.0:
            raise ValueError(f"schedule.warmup_ratio must be in [0, 1), got {self.warmup_ratio}")


@dataclass(frozen=True)
class AugmentSettings:
    """Augmentation: holes in the spectrograms, and changed speeds."""

    cutout_masks: int = 5  # rectangles cut out of each spectrogram (SpecCutout)
    cutout_time: int = 120  # frames, the longest side in time
    cutout_freq: int = 50  # mel bands, the longest side in frequency
    cutout_swapped: bool = False  # NeMo 0.x exchanged the two widths; True repeats that
    time_masks: int = 0  # stripes of time set to zero (SpecAugment)
    time_width: float = 0.05  # share of the utterance, the longest of them
    masks_per_frame: float = 0.0  # adaptive: an utterance gets this times its frames, at most time_masks; 0: always all
    freq_masks: int = 0  # stripes of mel bands set to zero
    freq_width: int = 10  # mel bands, the widest of them
    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)  # one is drawn for each clip; () or 1.0 alone: none
    time_stretch: TimeStretch = field(default_factory=TimeStretch)  # the eight below: quartznet/waveform.py
    room: Room = field(default_factory=Room)
    noise: Noise = field(default_factory=Noise)
    white_noise: WhiteNoise = field(default_factory=WhiteNoise)
    shift: Shift = field(default_factory=Shift)
    gain: Gain = field(default_factory=Gain)
    narrow_band: NarrowBand = field(default_factory=NarrowBand)
    codec: Codec = field(default_factory=Codec)

    def __post_init__(self) -> None:
        if any(not 0.5 <= speed <= 2.0 for speed in self.speeds):
            raise ValueError(f"augment.speeds must lie between 0.5 and 2, got {self.speeds}")
        if min(self.cutout_masks, self.cutout_time, self.cutout_freq, self.time_masks, self.freq_masks) < 0:
            raise ValueError("augment: counts and widths cannot be negative")
        if not 0.0 <= self.time_width <= 1.0 or not 0.0 <= self.masks_per_frame <= 1.0:
            raise ValueError(
                "augment: time_width and masks_per_frame are shares and must be in [0, 1], "
                f"got {self.time_width} and {self.masks_per_frame}"
            )


@dataclass(frozen=True)
class DataSettings:
    """The corpus, and how it becomes batches."""

    source: str | None = None  # manifest, Common Voice folder or archive, or folder of clips
    train: tuple[str, ...] = ()  # manifests; take the place of source
    dev: tuple[str, ...] = ()  # manifests of what is scored while training
    batch_seconds: float = 160.0  # seconds of audio in a batch, padding counted
    max_batch: int = 128  # utterances in a batch at most
    min_duration: float = 0.1  # s; shorter clips are left out and counted
    max_duration: float = 16.7  # s; longer clips are left out and counted
    workers: int = 2  # loader processes; 0: load in the training process
    max_failures: float = 0.01  # share of an epoch's clips that may fail to load; more stop the run
    cache: str = "none"  # none | memory | disk: decoded clips as 16-bit samples for the epochs to come
    cache_gigabytes: float = 4.0  # cap; of each process in memory
    cache_folder: str = "corpora/cache"  # of the cache on disk

    def __post_init__(self) -> None:
        if self.batch_seconds <= 0 or self.max_batch < 1 or self.workers < 0:
            raise ValueError("data needs batch_seconds > 0, max_batch >= 1 and workers >= 0")
        if self.cache not in ("none", "memory", "disk") or self.cache_gigabytes <= 0:
            raise ValueError(
                "data.cache must be none, memory or disk, with data.cache_gigabytes above 0, "
                f"got {self.cache!r} and {self.cache_gigabytes:g}"
            )
        if not 0.0 <= self.max_failures <= 1.0:
            raise ValueError(f"data.max_failures is a share and must be in [0, 1], got {self.max_failures}")


class LoopSettings(Protocol):
    """What the training loop asks of settings, a frozen dataclass; ``TrainSettings`` says what each means."""

    seed: int
    epochs: int
    steps: int | None
    precision: str
    ema: float
    evaluate_every: int
    evaluate_steps: int | None
    save_every: float
    keep_best: int
    max_bad_steps: int
    log_every: int
    optim: OptimSettings
    schedule: ScheduleSettings

    @property
    def layer_decay(self) -> float: ...

    @property
    def max_failures(self) -> float: ...


@dataclass(frozen=True)
class TrainSettings:
    """A whole run. ``epochs`` or ``steps`` ends it; ``steps`` wins where both are given."""

    # --- What to learn, and where from
    lang: str = "en"  # code of the language to learn; train.py needs it
    init: str | None = None  # checkpoint whose encoder is taken; None: from scratch
    preset: str = "15x5"  # 15x5 | 10x5 | 5x5 | 5x3 | tiny: the size, where there is no init
    head: str = "copy"  # copy | new: init's output rows start the letters that are the same or alike, or chance does
    dropout: float | None = None  # of every block; None: as init has it (15x5: 0), or the preset
    allow_char_loss: bool = False  # train although the text rules lose many letters
    out: str = "runs/latest"  # run folder; train.py makes it runs/LANG-INIT

    # --- How long, and on what (a GPU: docs/gpu.md)
    seed: int = 0  # of everything drawn by chance
    epochs: int = 50  # times that every clip is heard
    steps: int | None = None  # of the optimiser; takes the place of epochs
    precision: str = "auto"  # fp32 | bf16 | fp16 | auto: bf16 on a GPU that has it, else fp32
    device: str = "auto"  # cpu | cuda | auto
    kernels: str = "auto"  # plain: PyTorch's layers | triton: fused GPU kernels, no fp32 | auto: these if a test passes
    recompute: bool = False  # with fused kernels: 40 % less memory for activations, a tenth more to read and write
    graphs: bool = False  # with fused kernels on one GPU: steps replayed as one launch, for a CPU that cannot keep up

    # --- Weights: what learns, what is averaged
    freeze_encoder: int = 0  # epochs in which only the output layer learns; batch norm still updates its statistics
    ema: float = 0.0  # decay of the averaged weights; 0: off
    sync_batchnorm: bool = False  # batch-norm statistics of all GPUs together

    # --- Evaluating, saving and logging
    evaluate_every: int = 1  # epochs from one evaluation to the next
    evaluate_steps: int | None = None  # steps; takes the place of evaluate_every
    save_every: float = 10.0  # minutes between two copies of last.pt; it is also saved after every evaluation
    keep_best: int = 3  # checkpoints, by dev WER
    max_bad_steps: int = 10  # steps in a row without a finite loss after which the run stops
    log_every: int = 10  # steps from one line of the log to the next

    tune: TuneSettings = field(default_factory=TuneSettings)
    keep: KeepSettings = field(default_factory=KeepSettings)
    sequence: SequenceSettings = field(default_factory=SequenceSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    data: DataSettings = field(default_factory=DataSettings)

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "fp32", "bf16", "fp16"):
            raise ValueError(f"precision must be auto, fp32, bf16 or fp16, got {self.precision!r}")
        if self.kernels not in ("auto", "plain", "triton"):
            raise ValueError(f"kernels must be auto, plain or triton, got {self.kernels!r}")
        if self.kernels == "plain" and (self.recompute or self.graphs):
            raise ValueError("recompute and graphs need the fused kernels; leave them out, or take kernels auto")
        if self.graphs and self.sequence.method != "none":
            raise ValueError("graphs records CTC alone; leave it out with sequence.method, which looks at texts")
        if self.head not in ("copy", "new"):
            raise ValueError(f"head must be copy or new, got {self.head!r}")
        still = self.tune.train in ("head", "lora", "adapters") and self.tune.batchnorm not in ("full", "affine")
        if still and (self.keep.l2sp or (self.tune.train == "head" and self.keep.lwf)):
            raise ValueError(
                f"keep.l2sp and keep.lwf hold weights that would move; with tune.train {self.tune.train} those of the "
                "encoder do not, leave them out"
            )
        if self.freeze_encoder < 0:
            raise ValueError(f"freeze_encoder counts epochs and cannot be negative, got {self.freeze_encoder}")
        if self.dropout is not None and not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if not 0.0 <= self.ema < 1.0:
            raise ValueError(f"ema must be in [0, 1), got {self.ema}")
        if min(self.evaluate_every, self.max_bad_steps, self.keep_best, self.log_every) < 1 or self.save_every <= 0:
            raise ValueError(
                "evaluate_every, max_bad_steps, keep_best and log_every must be at least 1 and save_every above 0"
            )
        if self.evaluate_steps is not None and self.evaluate_steps < 1:
            raise ValueError(f"evaluate_steps must be at least 1, got {self.evaluate_steps}")
        if self.epochs < 1 or (self.steps is not None and self.steps < 1):
            raise ValueError(f"epochs and steps must be at least 1, got epochs {self.epochs}, steps {self.steps}")

    @property
    def layer_decay(self) -> float:
        """What the rate of a layer is multiplied by for the layer below it."""
        return self.tune.layer_decay

    @property
    def max_failures(self) -> float:
        """Share of an epoch's clips that may fail to load."""
        return self.data.max_failures
