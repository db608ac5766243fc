"""QuartzNet speech recognition in plain PyTorch: ``load_model``, ``QuartzNet``, ``save_nemo``."""

from pathlib import Path

from quartznet.checkpoint import is_checkpoint, model_from_checkpoint
from quartznet.model import QuartzNet
from quartznet.nemo import load_nemo, save_nemo

__all__ = ["QuartzNet", "load_model", "save_nemo"]


def load_model(path: str | Path) -> QuartzNet:
    """Reads any checkpoint into a model in evaluation mode.

    Args:
        path: a checkpoint or run folder of ours, or anything of NeMo that ``quartznet.nemo`` reads: ``.nemo``,
            a ``JasperEncoder*.pt`` pair, a Lightning ``.ckpt``, a plain state dict.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is not a checkpoint, or one that does not fit; the message says which part.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no checkpoint at {path}; give a file or a run folder")
    return model_from_checkpoint(path) if is_checkpoint(path) else load_nemo(path)
