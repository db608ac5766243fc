"""How fast a corrector learns and writes here, and in how much memory, beside transformers' ``EncoderDecoderModel``.

    python benchmarks/corrector.py [--device cpu] [--threads 1] [--sizes small base] [--json figures.json]

A training step is forward, loss, backward and optimiser; its rate counts the tokens of both texts, without padding.
Ours has the smoothed loss, theirs the one that it computes itself. Generation writes a fixed number of tokens, for
random weights never end a text: ours has an improbable end and a limit, theirs as many tokens at least as at most.
Networks have the same sizes and dropout; theirs has one layer more, between decoder and output. All run in one process,
in turns, until ``--seconds`` are over (once at least, after a round that is not counted); rates are those of the
fastest round. Without ``transformers`` its columns are left out.

The surprise: memory of a CPU cannot be measured in one process, for what was freed is not given back. So each case runs
again in a fork of a process that has imported everything. Its peak above that is told; any first call loads some 30 MB.
"""

import argparse
import gc
import importlib.metadata
import importlib.util
import json
import multiprocessing
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from data.samplers import TokenSampler
from postcorrect.batches import PairBatch
from postcorrect.config import CorrectorConfig, DropoutConfig, StackConfig
from postcorrect.loss import token_losses
from postcorrect.model import Corrector
from postcorrect.search import SearchSettings, beam_search, greedy
from postcorrect.wordpiece import pad_rows
from quartznet import distributed
from quartznet.config import OptimSettings
from quartznet.optim import build_optimizer

SHORTEST, LONGEST = 5, 40  # tokens of a sentence, begin and end among them
BATCHES = 2  # steps of a round, one from batches of shorter sentences and one from longer ones
WRITTEN = 24  # tokens that generation writes for each sentence, the end included; sources are as long
MOST_ROUNDS = 50
OURS, UNCACHED, THEIRS = "ours", "no cache", "transformers"
Run = Callable[[], object]


def stacks(layers: int) -> dict[str, StackConfig]:
    """Both halves, with the dropout of both BERTs of transformers."""
    half = StackConfig(layers, norm_epsilon=1e-12, dropout=DropoutConfig.everywhere(0.1))
    return {"encoder": half, "decoder": half}


SIZES = {
    "small": CorrectorConfig(3000, channels=256, heads=4, feed_forward=1024, **stacks(3)),
    "base": CorrectorConfig(30522, **stacks(12)),  # that of bert-base
}


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    size: str
    config: CorrectorConfig
    precision: str  # fp32 | bf16 (autocast)
    batch: int  # tokens of both texts with padding, or sentences
    beam: int = 0  # 0: a training step; 1: greedy
    optimizer: str = "adamw"
    who: str = OURS


# ---------------------------------------------------------------------------------------------------------------------
# What is read


def random_ids(config: CorrectorConfig, count: int, generator: torch.Generator) -> list[int]:
    """A text of ``count`` tokens, begin and end among them; no other special ones."""
    special = config.special
    words = torch.randint(special.mask + 1, config.vocabulary, (count - 2,), generator=generator)
    return [special.begin, *words.tolist(), special.end]


def pair_batches(config: CorrectorConfig, tokens: int, device: torch.device) -> list[PairBatch]:
    """Batches of like length out of pairs of 5 to 40 tokens, of which one text may be two tokens longer."""
    generator = torch.Generator().manual_seed(0)
    sources = torch.randint(SHORTEST, LONGEST + 1, (max(1000, tokens),), generator=generator)
    targets = sources + torch.randint(-2, 3, sources.shape, generator=generator)
    lengths = [sources.tolist(), targets.clamp(SHORTEST, LONGEST).tolist()]
    sampler = TokenSampler([2 * max(pair) for pair in zip(*lengths, strict=True)], tokens, shuffle=False)
    every = list(sampler)
    chosen = [every[(2 * number + 1) * len(every) // (2 * BATCHES)] for number in range(BATCHES)]
    batches = []
    for places in chosen:
        rows = [[random_ids(config, part[place], generator) for place in places] for part in lengths]
        source, target = (pad_rows(part, config.special.pad) for part in rows)
        batches.append(PairBatch(*source, *target, names=[""] * int(target[1][:, 1:].sum())).to(device))
    return batches


def sentences(config: CorrectorConfig, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sources for generation, (count, ``WRITTEN``), and their mask."""
    generator = torch.Generator().manual_seed(0)
    ids, mask = pad_rows([random_ids(config, WRITTEN, generator) for _ in range(count)], config.special.pad)
    return ids.to(device), mask.to(device)


# ---------------------------------------------------------------------------------------------------------------------
# Networks


@dataclass(frozen=True)
class Prefix:
    """In place of a cache: what is written so far, and of which sources."""

    hidden: Tensor
    mask: Tensor
    copies: int
    ids: Tensor  # (batch x copies, time)

    def take_rows(self, rows: Tensor) -> "Prefix":
        return replace(self, ids=self.ids[rows])

    def take_sources(self, sources: Tensor, rows: Tensor) -> "Prefix":
        return replace(self, hidden=self.hidden[sources], mask=self.mask[sources], ids=self.ids[rows])


class WithoutCache(Corrector):
    """A corrector that remembers nothing: every step calls the decoder on all that is written."""

    def start(self, hidden: Tensor, mask: Tensor, copies: int = 1) -> Prefix:
        return Prefix(hidden, mask, copies, torch.zeros(len(hidden) * copies, 0, dtype=torch.long, device=mask.device))

    def step(self, ids: Tensor, cache: Prefix) -> tuple[Tensor, Prefix]:
        ids = torch.cat([cache.ids, ids], dim=1)
        hidden, _ = self.decoder(self.encoder.tables(ids), self.decoder.start(cache.hidden, cache.mask, cache.copies))
        logits = nn.functional.linear(hidden[:, -1:], self.encoder.tables.tokens.weight, self.bias)
        return logits, replace(cache, ids=ids)


def theirs(config: CorrectorConfig) -> nn.Module:
    """transformers' network of the same sizes, random weights."""
    from transformers import BertConfig, EncoderDecoderConfig, EncoderDecoderModel

    sizes = {"hidden_size": config.channels, "num_attention_heads": config.heads, "vocab_size": config.vocabulary}
    sizes |= {"intermediate_size": config.feed_forward, "max_position_embeddings": config.positions}
    encoder = BertConfig(num_hidden_layers=config.encoder.layers, **sizes)  # its dropout is 0.1
    decoder = {"num_hidden_layers": config.decoder.layers, "is_decoder": True, "add_cross_attention": True}
    decoder = BertConfig(**decoder, **sizes)
    model = EncoderDecoderModel(EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder))
    model.config.pad_token_id, model.config.decoder_start_token_id = config.special.pad, config.special.begin
    return model


def is_installed() -> bool:
    """Whether there is a transformers to compare with."""
    return importlib.util.find_spec("transformers") is not None


def build(case: Case, device: torch.device) -> nn.Module:
    """The network of a case; the same weights for the same maker."""
    torch.manual_seed(0)
    if case.who == THEIRS:
        return theirs(case.config).to(device)
    model = (WithoutCache if case.who == UNCACHED else Corrector)(case.config)
    return model.to(device)


# ---------------------------------------------------------------------------------------------------------------------
# What is measured


def our_loss(model: Corrector, batch: PairBatch) -> Tensor:
    return token_losses(model, batch.source, batch.source_mask, batch.target, batch.target_mask, 0.1).mean()


def their_loss(model: nn.Module, batch: PairBatch) -> Tensor:
    seen = batch.target_mask[:, 1:]
    labels = batch.target[:, 1:].masked_fill(~seen, -100)
    with warnings.catch_warnings(action="ignore"):  # of what changed in versions long ago, at every call
        return model(batch.source, batch.source_mask, decoder_attention_mask=seen, labels=labels, use_cache=False).loss


def training(case: Case, device: torch.device) -> Run:
    """A round of training steps, each with the next batch."""
    model = build(case, device).train()
    optimizer = build_optimizer(model.parameters(), OptimSettings(case.optimizer, lr=1e-5))
    batches, loss = pair_batches(case.config, case.batch, device), their_loss if case.who == THEIRS else our_loss

    def run() -> None:
        for batch in batches:
            with torch.autocast(device.type, torch.bfloat16, enabled=case.precision == "bf16"):
                value = loss(model, batch)
            value.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


def writing(case: Case, device: torch.device) -> Run:
    """Generation for all sentences of a batch; returns their tokens, the best text of each."""
    model, special = build(case, device).eval(), case.config.special
    source, mask = sentences(case.config, case.batch, device)
    extra = 1  # WRITTEN - 2 tokens are the source's, 1 more and the end make WRITTEN
    if case.who != THEIRS:
        nn.init.constant_(model.bias[special.end : special.end + 1], -1e4)  # so that none ends before

    def run() -> list[list[int]]:
        if case.who == THEIRS:
            with torch.inference_mode():
                rows = model.generate(
                    source, attention_mask=mask, num_beams=case.beam, do_sample=False,
                    min_new_tokens=WRITTEN, max_new_tokens=WRITTEN,
                    decoder_start_token_id=special.begin, pad_token_id=special.pad, eos_token_id=special.end,
                )  # fmt: skip
            return rows[:, 1:].tolist()
        if case.beam == 1:
            return [[*text.ids, special.end] for text in greedy(model, source, mask, extra)]
        found = beam_search(model, source, mask, SearchSettings(case.beam, extra_tokens=extra))
        return [[*texts[0].ids, special.end] for texts in found]

    return run


def prepare(case: Case, device: torch.device) -> Run:
    """The work of a case, ready to be called again and again."""
    return writing(case, device) if case.beam else training(case, device)


def units(case: Case) -> int:
    """Tokens or sentences of one round."""
    if case.beam:
        return case.batch
    return sum(batch.tokens for batch in pair_batches(case.config, case.batch, torch.device("cpu")))


def rates(cases: Sequence[Case], device: torch.device, budget: float) -> list[float]:
    """Units a second of each case, all in turns for about ``budget`` seconds."""

    def seconds(run: Run) -> float:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    runs = [prepare(case, device) for case in cases]
    first = [seconds(run) for run in runs]
    rounds = [first] if sum(first) > 2 * budget else []  # where a round is so long, its first calls weigh little
    begin = time.perf_counter()
    while not rounds or (time.perf_counter() - begin < budget and len(rounds) < MOST_ROUNDS):
        rounds.append([seconds(run) for run in runs])
    return [units(case) / min(times) for case, times in zip(cases, zip(*rounds, strict=True), strict=True)]


def resident() -> float:
    """The largest memory that this process had so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_on_cpu(case: Case, threads: int) -> float:
    """Bytes that one round takes above those of the imports; for a process of its own."""
    torch.set_num_threads(threads)
    before = resident()
    prepare(case, torch.device("cpu"))()
    return resident() - before


def peak_on_gpu(case: Case) -> float:
    """Bytes of tensors that one round takes, the weights included."""
    gc.collect()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    prepare(case, torch.device("cuda"))()
    return torch.cuda.max_memory_allocated() - before


@contextmanager
def meter(device: torch.device, threads: int, imports: Sequence[str]) -> Iterator[Callable[[Case], float]]:
    """A function that measures the peak memory of a case, bytes; ``imports``: modules that do not count."""
    if device.type == "cuda":
        yield peak_on_gpu
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(imports))
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        yield lambda case: pool.submit(peak_on_cpu, case, threads).result()


def imported(with_theirs: bool) -> list[str]:
    """What a case imports; transformers loads its parts only when they are asked for."""
    bert = ["transformers.models.bert.modeling_bert", "transformers.models.encoder_decoder.modeling_encoder_decoder"]
    return ["postcorrect.batches", "postcorrect.search", "torch._dynamo", *(bert if with_theirs else [])]


# ---------------------------------------------------------------------------------------------------------------------
# The table


def line(first: Sequence[object], rates: Sequence[str], ratio: str, peaks: Sequence[str]) -> str:
    """One line of at most 80 columns, that of the titles too."""
    speed, memory = "".join(f"{rate:>10}" for rate in rates), "".join(f"{peak:>9}" for peak in peaks)
    return f"{first[0]:6}{first[1]:>5}{first[2]:>6}{speed}{ratio:>6}{memory}"


def titles(what: str, unit: str, kind: str, makers: Sequence[str]) -> list[str]:
    """What the columns are."""
    names = [who.replace(THEIRS, "theirs") for who in makers]
    ratio = "ratio" if THEIRS in makers else ""
    memory = "peak memory, MB" if len(names) > 1 else "peak MB"
    first = f"{what:17}{unit:>{10 * len(names)}}{'':6}{memory:>{9 * len(names)}}"
    return ["", first, line(("size", kind, "batch"), names, ratio, names)]


def row_line(case: Case, rates: dict[str, float], peaks: dict[str, float]) -> str:
    """The figures of one row."""
    ratio = f"{rates[OURS] / rates[THEIRS]:.2f}" if THEIRS in rates else ""
    speed = [f"{rate:,.0f}" if rate >= 100 else f"{rate:.2f}" for rate in rates.values()]
    first = (case.size, case.beam or case.precision, case.batch)
    return line(first, speed, ratio, [f"{peak / 1e6:,.0f}" for peak in peaks.values()])


def cases_of(options: argparse.Namespace) -> tuple[list[Case], list[Case]]:
    """Training steps and generation, in the order of the table."""
    steps, texts = [], []
    for size in options.sizes:
        for precision in ("fp32", "bf16"):
            steps += [Case(size, SIZES[size], precision, n, 0, options.optimizer) for n in options.tokens]
        texts += [Case(size, SIZES[size], "fp32", n, beam) for beam in (1, 4) for n in options.sentences]
    return steps, texts


def measure(options: argparse.Namespace, device: torch.device, has_theirs: bool) -> list[dict]:
    """Prints both tables line by line; returns what is in them, not rounded."""
    found, also = [], [THEIRS] if has_theirs else []
    named = (
        ("training step", "tokens a second", "type", [OURS, *also]),
        ("generation, fp32", "sentences a second", "beam", [OURS, UNCACHED, *also]),
    )
    with meter(device, options.threads, imported(has_theirs)) as peak:
        for names, cases in zip(named, cases_of(options), strict=True):
            print(*titles(*names), sep="\n", flush=True)
            for case in cases:
                each = [replace(case, who=who) for who in names[-1]]
                speed = dict(zip(names[-1], rates(each, device, options.seconds), strict=True))
                memory = {one.who: peak(one) for one in each}
                print(row_line(case, speed, memory), flush=True)
                what = {key: value for key, value in asdict(case).items() if key != "who"}
                found.append({**what, "rates": speed, "peak_bytes": memory})
    return found


def describe(device: torch.device, threads: int, has_theirs: bool) -> list[str]:
    """The machine, the versions, and what the columns mean."""
    is_gpu = device.type == "cuda"
    lines = [
        f"torch {torch.__version__}, {torch.cuda.get_device_name() if is_gpu else f'CPU, threads: {threads}'}",
        f"memory: {'tensors, by torch.cuda' if is_gpu else 'a process for each case, what it has above its imports'}",
    ]
    if not has_theirs:
        return [*lines, "transformers is not installed, so its columns are left out"]
    version = importlib.metadata.version("transformers")
    return [*lines, f"theirs: EncoderDecoderModel of transformers {version}; ratio above 1: ours faster"]


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="auto")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), help="default: small; on a GPU small and base")
    parser.add_argument("--optimizer", choices=("adamw", "novograd"), default="adamw", help="of both")
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048, 4096], help="of a training batch, with padding")
    parser.add_argument("--sentences", type=int, nargs="+", default=[1, 32], help="that are written together")
    parser.add_argument("--seconds", type=float, default=8.0, help="about what each line takes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    return parser.parse_args()


def main() -> None:
    options = read_options()
    device = distributed.choose_device(options.device)
    options.sizes = options.sizes or (list(SIZES) if device.type == "cuda" else ["small"])
    torch.set_num_threads(options.threads)
    about = describe(device, options.threads, is_installed())
    print(*about, sep="\n", flush=True)
    rows = measure(options, device, is_installed())
    if options.json:
        options.json.write_text(json.dumps({"about": about, "written": WRITTEN, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
