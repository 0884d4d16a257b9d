"""How do I get a model ready to be read? By hub name or local folder, checked before anything is opened.

Weights come as safetensors and stay on disk, mapped into memory. The limit: only families with a row in
`sites.FAMILIES`, and only weights that need no unpickling.
"""

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig
from transformers.utils import logging

from mechkit.network.assets import default_model
from mechkit.network.downloads import OneSentence
from mechkit.network.model import LanguageModel
from mechkit.network.sites import family_of
from mechkit.network.tiny import tiny_model

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # their numbers in glibc's malloc.h

__all__ = ["LanguageModel", "ModelError", "keep_memory", "load_model", "tiny_model"]


class ModelError(OneSentence, OSError, ValueError):
    """A model that cannot be had, in one sentence."""


def load_model(name: str | os.PathLike | None = None) -> LanguageModel:
    """A model by hub name or local folder, in float32.

    Float32 weights stay on disk and are mapped into memory; others are converted. Nothing is unpickled, and no
    code that comes with a model is run.

    Args:
        name: None for what MECHKIT_MODEL names or, without it, the course's default model.
    Raises: ModelError if the hub cannot be reached, or for what holds no model that can be read; ValueError for a
        family without a row, which lists those that have one.
    Chapter: 00.
    """
    _give_memory_back()
    name = os.fspath(name or os.environ.get("MECHKIT_MODEL") or default_model())
    folder = Path(name).expanduser()
    with _quiet():
        if folder.is_dir():
            _check_files(name, [each.name for each in folder.iterdir()])
            return _from_pretrained(str(folder), folder.resolve().name, offline=True)
        return _from_pretrained(name, name, offline=not _on_hub(name))


def keep_memory() -> None:
    """Let freed blocks stay in the heap, on Linux: for a long job, which would else get the same pages again and again.

    It undoes for this process what `load_model` asks for, and makes sampling and training up to twice as fast.
    """
    _set_malloc({M_MMAP_THRESHOLD: 32 * 2**20, M_TRIM_THRESHOLD: 2**30, M_TOP_PAD: 2**28})


def _give_memory_back() -> None:
    """Let freed blocks of 2 MB and more go back to the system, on Linux.

    glibc raises that threshold to the size of what was last freed, so that a chapter's logits would stay in the
    heap: half a gigabyte, on a machine that may have two.
    """
    _set_malloc({M_MMAP_THRESHOLD: 2 * 2**20})


def _set_malloc(parameters: dict[int, int]) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            for number, value in parameters.items():
                ctypes.CDLL(None).mallopt(number, value)


def _from_pretrained(source: str, name: str, *, offline: bool) -> LanguageModel:
    with _in_words(source, offline):
        model_type = PreTrainedConfig.get_config_dict(source, local_files_only=offline)[0].get("model_type", "unknown")
    family_of(model_type)
    with _in_words(source, offline):
        hf, report = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=offline,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=offline)
    if report["missing_keys"]:
        raise ModelError(
            f"wanted all weights of {name}; {len(report['missing_keys'])} are missing, "
            f"such as {min(report['missing_keys'])}: get the model again"
        )
    return LanguageModel(hf, tokenizer, name)


@contextmanager
def _in_words(source: str, offline: bool) -> Iterator[None]:
    """What can go wrong when files are read, as one sentence."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, AttributeError, ImportError, SafetensorError) as error:
        if offline and not Path(source).is_dir():
            raise ModelError(
                f"wanted the model {source!r}; the Hugging Face hub could not be reached and there is no copy here: "
                "name a local folder, or unset MECHKIT_MODEL for the default model"
            ) from None
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"wanted a model in Hugging Face format; {source} could not be read ({reason}): get it again"
        ) from None


def _on_hub(name: str) -> bool:
    """Whether the hub answers for this model; False if it cannot be asked."""
    try:
        info = HfApi().model_info(name, timeout=10)
    except HFValidationError:
        raise ModelError(f"wanted a folder or the name of a hub model; came {name!r}, which is neither") from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"the Hugging Face hub has no open model {name!r}: check the spelling, or log in if it needs permission"
        ) from None
    except Exception:  # whatever goes wrong on the way to the hub: an earlier download may still be here
        return False
    _check_files(name, [each.rfilename for each in info.siblings])
    return True


def _check_files(name: str, files: Sequence[str]) -> None:
    if "config.json" not in files:
        raise ModelError(f"wanted a model in Hugging Face format; {name} has no config.json: choose another folder")
    if not any(file.endswith(".safetensors") for file in files):
        pickled = [file for file in files if file.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        found = f"only pickled ones ({pickled[0]}), which are never opened" if pickled else "none"
        raise ModelError(
            f"wanted weights as safetensors; {name} has {found}: save the model with save_pretrained, or choose another"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """No loading messages from transformers, whose settings are put back; downloads keep their progress bar."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_bar = not are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if hub_bar:
        enable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
        if not hub_bar:
            disable_progress_bars()
