"""Ours are read by SAELens and theirs by us, with the same features; what is wrong with a file is a sentence."""

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from mechkit.methods.sae import SAE, JumpReLU, ReLU, TopK
from mechkit.methods.sae_files import CONFIG_FILE, WEIGHTS_FILE, load_sae, save_sae

KINDS = {"standard": ReLU(), "topk": TopK(3), "jumprelu": JumpReLU()}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def lens():
    """SAELens, which takes seconds to import, and some of what it imports warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("sae_lens")


def random_sae(activation, d_out=None):
    sae = SAE(32, 48, activation, d_out=d_out)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            if name != "W_dec":
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator()))
        if sae.threshold is not None:
            sae.threshold.abs_()
    return sae.requires_grad_(False)


def saved(folder, sae, **changes):
    site = ("mlp_in", "mlp_out") if sae.is_transcoder else "resid_post"
    save_sae(sae, folder, **({"model": "tiny llama", "site": site, "layer": 1} | changes))
    return folder


@pytest.mark.parametrize("d_out", [None, 20])
@pytest.mark.parametrize("activation", KINDS.values())
def test_what_is_saved_comes_back(tmp_path, activation, d_out):
    sae = random_sae(activation, d_out)
    again = load_sae(saved(tmp_path, sae))
    x = torch.randn(9, 32, generator=generator(1))
    assert torch.equal(again(x), sae(x))
    assert again.site == (("mlp_in", "mlp_out") if d_out else "resid_post")
    assert (again.layer, again.model_name) == (1, "tiny llama")


def test_the_files_are_those_that_saelens_documents(tmp_path):
    """`cfg.json` with architecture, d_in, d_sae, k and a hook's name; `sae_weights.safetensors` with its names."""
    saved(tmp_path, random_sae(TopK(3)), metadata={"dataset_path": "ours"})
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert (config["architecture"], config["d_in"], config["d_sae"], config["k"]) == ("topk", 32, 48, 3)
    assert config["apply_b_dec_to_input"] is True
    assert config["metadata"]["hook_name"] == "blocks.1.hook_resid_post"
    assert config["metadata"]["dataset_path"] == "ours"
    shapes = {name: tuple(value.shape) for name, value in load_file(tmp_path / "sae_weights.safetensors").items()}
    assert shapes == {"W_enc": (32, 48), "b_enc": (48,), "W_dec": (48, 32), "b_dec": (32,)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_saelens_reads_ours(lens, tmp_path, kind):
    sae = random_sae(KINDS[kind])
    theirs = lens.SAE.load_from_disk(saved(tmp_path, sae))
    x = torch.randn(9, 32, generator=generator(1))
    assert theirs.cfg.architecture() == kind
    torch.testing.assert_close(theirs.encode(x), sae.encode(x))
    torch.testing.assert_close(theirs(x), sae(x))


@pytest.mark.slow
@pytest.mark.parametrize("activation", [ReLU(), JumpReLU()])
def test_saelens_reads_our_transcoders(lens, tmp_path, activation):
    sae = random_sae(activation, 20)
    theirs = lens.SAE.load_from_disk(saved(tmp_path, sae))
    x = torch.randn(9, 32, generator=generator(1))
    torch.testing.assert_close(theirs(x), sae(x))


@pytest.mark.slow
def test_saelens_refuses_our_topk_transcoder_and_does_not_run_another_function(lens, tmp_path):
    with pytest.raises((ValueError, KeyError)):
        lens.SAE.load_from_disk(saved(tmp_path, random_sae(TopK(3), 20)))


def their(lens, kind, **settings):
    config = {
        "standard": lens.StandardSAEConfig,
        "topk": lens.TopKSAEConfig,
        "jumprelu": lens.JumpReLUSAEConfig,
        "transcoder": lens.TranscoderConfig,
    }[kind](d_in=32, d_sae=48, **settings)
    config.metadata.model_name = "tiny llama"
    config.metadata.hook_name = "blocks.2.hook_resid_post"
    sae = lens.SAE.get_sae_class_for_architecture(kind)(config)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(7)))
    return sae


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("standard", {}),
        ("standard", {"apply_b_dec_to_input": False}),
        ("topk", {"k": 4}),
        ("topk", {"k": 4, "rescale_acts_by_decoder_norm": True}),
        ("jumprelu", {}),
        ("transcoder", {"d_out": 20, "apply_b_dec_to_input": False}),
    ],
)
def test_we_read_theirs(lens, tmp_path, kind, settings):
    theirs = their(lens, kind, **settings)
    theirs.save_model(tmp_path)
    ours = load_sae(tmp_path)
    x = torch.randn(9, 32, generator=generator(1))
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)
    assert ours.site == "resid_post"
    assert ours.layer == 2


def test_another_models_sae_is_told(tmp_path, tiny_models):
    lm = tiny_models["llama"]
    assert load_sae(saved(tmp_path / "own", random_sae(ReLU())), lm).layer == 1
    other = saved(tmp_path / "other", random_sae(ReLU()), model="gpt2-small")
    with pytest.raises(ValueError, match=r"wanted an SAE of tiny llama, .* is one of gpt2-small with 32, at layer 1"):
        load_sae(other, lm)
    wide = saved(tmp_path / "wide", SAE(40, 60, ReLU()))
    with pytest.raises(ValueError, match="whose activations have 32 numbers; wide is one of tiny llama with 40"):
        load_sae(wide, lm)
    deep = saved(tmp_path / "deep", random_sae(ReLU()), layer=3)
    with pytest.raises(ValueError, match="at layer 3: its features mean nothing here"):
        load_sae(deep, lm)


def test_damaged_files_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"a folder with cfg.json and sae_weights.safetensors; .* has no cfg.json"):
        load_sae(tmp_path)
    saved(tmp_path, random_sae(ReLU()))
    weights = (tmp_path / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(weights[:-100])
    with pytest.raises(ValueError, match=r"wanted the files of an SAE; those in .* are damaged .*: get them again"):
        load_sae(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(weights)
    config = (tmp_path / CONFIG_FILE).read_text()
    (tmp_path / CONFIG_FILE).write_text(config[:40])
    with pytest.raises(ValueError, match="are damaged"):
        load_sae(tmp_path)
    (tmp_path / CONFIG_FILE).write_text(config.replace('"d_sae": 48', '"d_sae": 49'))
    with pytest.raises(ValueError, match=r"W_dec should be of shape \(49, 32\) and is \(48, 32\)"):
        load_sae(tmp_path)
    save_file({"W_enc": torch.zeros(32, 48)}, tmp_path / WEIGHTS_FILE)
    (tmp_path / CONFIG_FILE).write_text(config)
    with pytest.raises(ValueError, match=r"W_dec should be of shape \(48, 32\) and is None"):
        load_sae(tmp_path)


def test_a_kind_that_cannot_be_run_is_told(tmp_path):
    saved(tmp_path, random_sae(ReLU()))
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config | {"architecture": "gated"}))
    with pytest.raises(ValueError, match="is of kind 'gated': use one of standard, topk, jumprelu"):
        load_sae(tmp_path)
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config | {"normalize_activations": "layer_norm"}))
    with pytest.raises(ValueError, match=r"wants them normalised \(layer_norm\): fold that into its weights"):
        load_sae(tmp_path)


def test_nothing_is_pickled(tmp_path):
    saved(tmp_path, random_sae(ReLU()))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]
