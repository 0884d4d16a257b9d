"""Models come from folders and the hub, whole, in float32 and without a word; what cannot be read gets a sentence."""

import json
import pickle
import subprocess
import sys

import huggingface_hub.utils as hub
import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from mechkit.network import loading
from mechkit.network.cache import run
from mechkit.network.loading import ModelError, load_model
from mechkit.network.tiny import tiny_model

PROMPT = "The capital of France is"


def save(lm, folder):
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    lm.hf.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    if bars:
        logging.enable_progress_bar()
    return folder


@pytest.fixture
def folder(tmp_path):
    """A tiny Llama on disk."""
    return save(tiny_model("llama"), tmp_path / "small-llama")


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def refused(name, words, kind=ModelError):
    """It is refused in one sentence, with no other traceback behind it."""
    with pytest.raises(kind, match=words) as caught:
        load_model(name)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert "\n" not in str(caught.value)


def test_every_family_loads_and_gives_hugging_faces_logits(tiny, tmp_path):
    save(tiny, tmp_path / "model")
    lm = load_model(tmp_path / "model")
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model", attn_implementation="eager")
        assert torch.equal(run(lm, PROMPT)[0], theirs(lm.tokens(PROMPT)).logits)
    assert lm.name == "model"


def test_the_environment_names_the_model_unless_an_argument_does(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MECHKIT_MODEL", str(folder))
    assert load_model().name == "small-llama"
    other = save(tiny_model("gpt2"), tmp_path / "small-gpt2")
    assert load_model(other).hf.config.model_type == "gpt2"


def test_the_default_model_is_asked_for_only_without_a_name(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(loading, "default_model", lambda: asked.append(True) or folder)
    load_model(str(folder))
    assert asked == []
    assert load_model().name == "small-llama"
    assert asked == [True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_smaller_floats_are_converted(dtype, tmp_path):
    lm = tiny_model("llama")
    lm.hf.to(dtype)
    loaded = load_model(save(lm, tmp_path / "half"))
    assert {weight.dtype for weight in loaded.hf.parameters()} == {torch.float32}
    assert run(loaded, PROMPT)[0].isfinite().all()


def test_loading_says_nothing_and_leaves_the_settings_alone(folder, capfd):
    before = logging.get_verbosity(), logging.is_progress_bar_enabled(), hub.are_progress_bars_disabled()
    load_model(folder)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    after = logging.get_verbosity(), logging.is_progress_bar_enabled(), hub.are_progress_bars_disabled()
    assert after == before


def test_settings_are_put_back_after_a_failure_too(tmp_path):
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    refused(tmp_path, "has no config.json")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    refused(tmp_path, "wanted a model in Hugging Face format; .* has no config.json: choose another folder")


def test_a_family_without_a_row_is_refused_with_those_that_have_one(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    families = "gemma2, gpt2, gpt_neox, llama, mistral, qwen2, qwen3"
    refused(folder, f"came one of type 'bert': use one of {families}", ValueError)
    (folder / "config.json").write_text("{}")
    refused(folder, "came one of type 'unknown': use one of gemma2", ValueError)


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


def test_pickled_weights_are_never_opened(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    refused(folder, r"has only pickled ones \(pytorch_model.bin\), which are never opened")
    (folder / "pytorch_model.bin").unlink()
    refused(folder, "wanted weights as safetensors; .* has none")


def test_code_that_comes_with_a_model_is_not_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "theirs.Theirs", "AutoConfig": "theirs.Config"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "theirs.py").write_text("raise SystemExit('their code was run')")
    assert type(load_model(folder).hf).__name__ == "LlamaForCausalLM"


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_damaged_configuration_is_refused(text, folder):
    (folder / "config.json").write_text(text)
    refused(folder, "could not be read .*: get it again")


def test_damaged_weights_are_refused(folder):
    whole = (folder / "model.safetensors").read_bytes()
    for length in (5, len(whole) // 2):
        (folder / "model.safetensors").write_bytes(whole[:length])
        refused(folder, "could not be read .*: get it again")


def test_missing_weights_are_not_made_up(folder):
    change_weights(folder, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    refused(folder, "all weights of small-llama; 1 are missing, such as model.layers.1.mlp.up_proj.weight")


def test_weights_of_another_shape_are_refused(folder):
    change_weights(folder, lambda weights: weights.update({"model.norm.weight": torch.ones(5)}))
    refused(folder, "could not be read")


def test_a_folder_without_a_tokenizer_is_refused(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    refused(folder, "could not be read")


@pytest.mark.parametrize("name", ["./nowhere/at/all", "a/b/c", "no such model"])
def test_what_is_neither_a_folder_nor_a_hub_name_is_refused(name):
    refused(name, "wanted a folder or the name of a hub model; came .*, which is neither")


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("socket.socket.connect", fail)
    monkeypatch.setattr("socket.getaddrinfo", fail)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_hub_model_without_network_gets_a_sentence_at_once(no_network):
    refused("gpt2", "'gpt2'; the Hugging Face hub could not be reached and .* unset MECHKIT_MODEL")


def test_a_hub_model_that_was_fetched_before_needs_no_network(no_network, tmp_path):
    kept = tmp_path / "hub" / "models--somebody--small"
    save(tiny_model("llama"), kept / "snapshots" / "0123abc")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0123abc")
    assert load_model("somebody/small").name == "somebody/small"


def test_a_notebook_shows_the_sentence_without_a_traceback(no_network, tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = InteractiveShell()
    with capture_output() as captured:
        shell.run_cell("from mechkit.network.loading import load_model\nload_model('gpt2')")
    assert captured.stdout.strip().startswith("ModelError: wanted the model 'gpt2'; the Hugging Face hub could not")
    assert "Traceback" not in captured.stdout + captured.stderr


class Answer:
    """The hub's answer to "what is in this repository?"."""

    def __init__(self, *files):
        self.siblings = [type("File", (), {"rfilename": file}) for file in files]


def hub_says(monkeypatch, answer):
    def model_info(self, name, timeout):
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)


def test_a_hub_model_of_pickles_is_refused_before_anything_is_fetched(no_network, monkeypatch):
    hub_says(monkeypatch, Answer("config.json", "pytorch_model.bin"))
    refused("somebody/pickled", r"somebody/pickled has only pickled ones \(pytorch_model.bin\)")


def test_a_model_that_the_hub_lacks_gets_a_sentence(no_network, monkeypatch):
    class Missing(RepositoryNotFoundError):
        def __init__(self):
            Exception.__init__(self, "404")

    hub_says(monkeypatch, Missing())
    refused("somebody/nothing", "the Hugging Face hub has no open model 'somebody/nothing': check the spelling")


MEMORY = """
import os, sys

def anonymous():
    [line] = [line for line in open("/proc/self/smaps_rollup") if line.startswith("Anonymous:")]
    return int(line.split()[1]) / 2**20

from mechkit.network.loading import load_model
before = anonymous()
lm = load_model()
print(anonymous() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_default_model_takes_little_memory_of_its_own(default_model):
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert float(done.stdout) <= 0.5


@pytest.mark.slow
def test_the_default_model_knows_paris(default_model):
    logits, _ = run(default_model, PROMPT)
    assert default_model.labels(logits[0, -1:].argmax(-1)) == [" Paris"]
    assert default_model.prefix == "<|endoftext|>"
    assert default_model.tokens(PROMPT)[0, 0] == 0
    assert (default_model.n_layers, default_model.n_heads, default_model.n_kv_heads) == (30, 9, 3)
