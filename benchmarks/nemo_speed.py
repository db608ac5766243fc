"""NeMo's own times for the rows of ``benchmarks/speed.py``; runs in an environment with nemo_toolkit, not in ours.

python benchmarks/nemo_speed.py CHECKPOINT.nemo [--batch 8] [--seconds 10] [--threads 2]
"""

import argparse
import time
from collections.abc import Callable

import torch
from nemo.collections.asr.models import ASRModel


def seconds(function: Callable[[], object], runs: int) -> float:
    """Median wall-clock seconds of ``runs`` calls after one that is not counted."""
    function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return sorted(times)[runs // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = ASRModel.restore_from(arguments.checkpoint, map_location="cpu").eval()
    model.spec_augmentation = None
    samples = int(arguments.seconds * 16000)
    signal, lengths = torch.randn(arguments.batch, samples) * 0.1, torch.full((arguments.batch,), samples)
    targets, target_lengths = torch.randint(0, 28, (arguments.batch, 60)), torch.full((arguments.batch,), 60)

    def forward() -> tuple:
        return model(input_signal=signal, input_signal_length=lengths)[:2]

    def step() -> None:
        model.zero_grad()
        log_probs, output_lengths = forward()
        model.loss(
            log_probs=log_probs.float(), targets=targets, input_lengths=output_lengths, target_lengths=target_lengths
        ).backward()

    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            model.eval()
            with torch.inference_mode():
                print(f"NeMo inference {name}       {seconds(forward, arguments.runs):8.2f} s", flush=True)
            model.train()
            print(f"NeMo training step {name}   {seconds(step, arguments.runs):8.2f} s", flush=True)


if __name__ == "__main__":
    main()
