"""Turn a GGUF file into a Hugging Face folder: `python -m mechkit.network.conversion FILE FOLDER`.

Run once, in a process of its own: reading GGUF takes about 0.9 GB, of which Python gives back little, and a
model read that way refuses `save_pretrained`, so its weights move to a fresh `LlamaForCausalLM`.
"""

import os
import sys
from pathlib import Path
from threading import Thread

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from transformers.utils import logging


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write model.safetensors (float32), config.json and the tokenizer of a Llama-family GGUF file."""
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    read = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = read.config
    del config.quantization_config
    config.name_or_path = folder.name
    with torch.device("meta"):
        fresh = LlamaForCausalLM(config)
    fresh.load_state_dict(read.state_dict(), assign=True)
    fresh.tie_weights()
    fresh.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


def end_with_caller() -> None:
    """End this process when whoever holds the other end of stdin is gone, so that a killed run leaves no orphan."""

    def wait() -> None:
        os.read(0, 1)  # not sys.stdin, whose lock would be held when the interpreter ends
        os._exit(1)

    Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    if "--attached" in sys.argv:
        end_with_caller()
    # Leaves one bar on stderr, that of the tensors, whose percentage the caller reads.
    logging.disable_progress_bar()
    convert_gguf(Path(sys.argv[1]), Path(sys.argv[2]))
