"""Speech from text with espeak-ng, called through ctypes: several hundred times faster than real time.

The ``espeakng-loader`` wheel carries the library and its voices, so neither root nor a system package is needed. The
library is GPL-3 and is only called, never copied into this project; what it says is free to use.

The surprise: espeak-ng keeps everything in static variables (voice, echo, phase of the oscillator, seed of its noise),
and these survive even ``espeak_Terminate``, so that the same text sounds a little different each time. Each ``Espeak``
therefore loads its own private copy of the library: two objects do not disturb each other, and the same seed followed
by the same calls in the same order gives the same samples to the bit. One object must stay in one thread.
"""

import ctypes
import shutil
import tempfile
from pathlib import Path

import numpy as np

_SYNCHRONOUS, _DO_NOT_EXIT, _UTF8, _RATE, _PITCH = 2, 0x8000, 1, 1, 3  # names from espeak-ng's speak_lib.h
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def installed_paths() -> tuple[Path, Path]:
    """The library and its folder of voices. Raises ``FileNotFoundError`` with the command that installs them."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise FileNotFoundError("espeak-ng is not installed; run: pip install espeakng-loader") from error
    paths = Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"espeak-ng lacks {path}; run: pip install --force-reinstall espeakng-loader")
    return paths


def private_copy(library: Path) -> ctypes.CDLL:
    """Loads ``library`` from a temporary copy, so that its static variables are shared with nobody."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # a loaded file may be deleted on POSIX
        copy = ctypes.CDLL(shutil.copy2(library, folder))
    copy.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    copy.espeak_Synth.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint]
    copy.espeak_Synth.argtypes += [ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p]
    copy.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    return copy


class Espeak:
    """A speech synthesiser; see the file's docstring for what is reproducible.

    Args:
        seed: of the noise in the voices (breath, roughness).
    """

    def __init__(self, seed: int = 0) -> None:
        path, self._voices = installed_paths()
        self._library = private_copy(path)
        self._chunks: list[np.ndarray] = []
        self._callback = _CALLBACK(self._collect)  # kept here: the library holds only the bare pointer
        self.sample_rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, bytes(self._voices), _DO_NOT_EXIT)
        if self.sample_rate <= 0:
            raise ValueError(f"espeak-ng cannot read its voices in {self._voices} (it fails on paths of 160 letters)")
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_ng_SetRandSeed(seed)

    def _collect(self, samples: object, count: int, _events: object) -> int:
        if samples and count:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # go on

    def variants(self) -> list[str]:
        """Names of the voice qualities that can be laid over any language, such as ``f2``."""
        return sorted(path.name for path in (self._voices / "voices" / "!v").iterdir())

    def synthesize(
        self, text: str, voice: str, words_per_minute: int = 175, pitch: int = 50, variant: str = ""
    ) -> tuple[np.ndarray, int]:
        """Says ``text`` in the language ``voice`` (``es``, ``en-us``) with the quality ``variant`` (``f2``).

        Args:
            words_per_minute: 80 to 450.
            pitch: 0 to 100; 50 is what the voice was made with.

        Returns:
            float32 samples in [-1, 1], without silence at either end, and their sample rate, 22050 Hz.

        Raises:
            ValueError: unknown voice or variant, impossible speed or pitch, or a text in which nothing can be said.
        """
        if not 80 <= words_per_minute <= 450 or not 0 <= pitch <= 100:
            got = f"{words_per_minute} at pitch {pitch}"
            raise ValueError(f"espeak-ng says 80 to 450 words a minute at pitch 0 to 100, got {got}")
        if variant and variant not in self.variants():  # espeak-ng itself would silently take the plain voice
            raise ValueError(f"espeak-ng has no variant {variant!r}; there are {', '.join(self.variants())}")
        name = f"{voice}+{variant}" if variant else voice
        if self._library.espeak_SetVoiceByName(name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}; try a language code such as 'es' or 'en-us'")
        self._library.espeak_SetParameter(_RATE, words_per_minute, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        if not any(letter.isalnum() for letter in text):
            raise ValueError(f"there is nothing to say in {text!r}; give it words or numbers")
        self._chunks.clear()
        letters = text.encode()
        status = self._library.espeak_Synth(letters, len(letters) + 1, 0, 0, 0, _UTF8, None, None)
        assert status == 0 and self._chunks, f"espeak-ng status {status} for {text!r}"
        return np.concatenate(self._chunks).astype(np.float32) / 32768, self.sample_rate
