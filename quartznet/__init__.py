"""QuartzNet speech recognition in plain PyTorch: ``load_model``, ``QuartzNet``, ``save_nemo``."""

from pathlib import Path

from quartznet.checkpoint import is_checkpoint, model_from_checkpoint
from quartznet.model import QuartzNet

__all__ = ["QuartzNet", "load_model", "save_nemo"]

# quartznet.nemo is imported inside the functions: it is also a program (python -m quartznet.nemo), and a module that
# its own package has already imported would run twice.


def load_model(path: str | Path) -> QuartzNet:
    """Reads any checkpoint into a model in evaluation mode.

    Args:
        path: a checkpoint or run folder of ours, or anything of NeMo that ``quartznet.nemo`` reads: ``.nemo``,
            a ``JasperEncoder*.pt`` pair, a Lightning ``.ckpt``, a plain state dict.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is not a checkpoint, or one that does not fit; the message says which part.
    """
    from quartznet.nemo import load_nemo

    if not Path(path).exists():
        raise FileNotFoundError(f"there is no checkpoint at {path}; give a file or a run folder")
    return model_from_checkpoint(path) if is_checkpoint(path) else load_nemo(path)


def save_nemo(model: QuartzNet, path: str | Path) -> None:
    """Writes ``model`` as a ``.nemo`` that NeMo's ``ASRModel.restore_from`` loads strictly (checked with 2.5.3)."""
    from quartznet import nemo

    nemo.save_nemo(model, path)
