"""How does a dictionary travel? In SAELens' files: `cfg.json` beside `sae_weights.safetensors`.

What is read: SAELens' standard, topk and jumprelu SAEs, and its transcoders. What it has no name for, a transcoder
with TopK, is written under a name of ours, so that SAELens refuses it and does not quietly run another function.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechkit.methods.sae import SAE, JumpReLU, ReLU, TopK
from mechkit.network.model import LanguageModel
from mechkit.network.sites import TRANSFORMER_LENS

CONFIG_FILE, WEIGHTS_FILE = "cfg.json", "sae_weights.safetensors"
ARCHITECTURES = {"standard": ReLU, "topk": TopK, "jumprelu": JumpReLU}
OURS = "topk_transcoder"  # SAELens has none
TRANSCODERS = {"transcoder": ReLU, OURS: TopK, "jumprelu_transcoder": JumpReLU}
HOOKS = {name: site for site, name in TRANSFORMER_LENS.items()}


def save_sae(
    sae: SAE,
    folder: Path,
    *,
    model: str,
    site: str | tuple[str, str],
    layer: int,
    metadata: Mapping[str, object] | None = None,
) -> None:
    """Write an SAE in SAELens' format, with where in which model it belongs.

    Args:
        model: Its name, as `lm.name`.
        site: What it reads; for a transcoder also what it rebuilds.
        metadata: More to know about it, such as what it was trained on.
    Chapter: 08.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    read, written = (site, site) if isinstance(site, str) else site
    names = {kind: name for name, kind in (TRANSCODERS if sae.is_transcoder else ARCHITECTURES).items()}
    config = {
        "architecture": names[type(sae.activation)],
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": not sae.is_transcoder,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    if sae.is_transcoder:
        config["d_out"] = sae.d_out
    if isinstance(sae.activation, TopK):
        config |= {"k": sae.activation.k, "rescale_acts_by_decoder_norm": False}
    config["metadata"] = {
        "model_name": model,
        "hook_name": TRANSFORMER_LENS[read].format(layer=layer),
        "hook_name_out": TRANSFORMER_LENS[written].format(layer=layer),
        "prepend_bos": True,
        **(metadata or {}),
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file({name: value.detach().contiguous() for name, value in sae.state_dict().items()}, folder / WEIGHTS_FILE)


def load_sae(folder: Path, lm: LanguageModel | None = None) -> SAE:
    """Read an SAE in SAELens' format: one of ours, or of theirs.

    Args:
        lm: The model that it is for, to be told if it is another's.
    Raises: ValueError for a folder without one, a damaged file, a kind that we cannot run, or another model's SAE.
    Chapter: 08.
    """
    folder = Path(folder)
    config, weights = _read(folder)
    kinds = ARCHITECTURES | TRANSCODERS
    if config["architecture"] not in kinds:
        raise ValueError(
            f"wanted an SAE of a kind that can be run here; {folder.name} is of kind {config['architecture']!r}: "
            f"use one of {', '.join(kinds)}"
        )
    if config.get("normalize_activations", "none") not in ("none", None):
        raise ValueError(
            f"wanted an SAE for activations as they are; {folder.name} wants them normalised "
            f"({config['normalize_activations']}): fold that into its weights with SAELens, and save it again"
        )
    sae = _build(config, weights, folder)
    known = config.get("metadata") or config
    sae.model_name = known.get("model_name")
    places = [_place(known.get(name)) for name in ("hook_name", "hook_name_out")]
    if places[0]:
        sae.layer, read = places[0]
        sae.site = (read, places[1][1]) if sae.is_transcoder and places[1] else read
    if lm is not None:
        _check_model(sae, lm, folder)
    return sae.requires_grad_(False)


def _read(folder: Path) -> tuple[dict, dict[str, Tensor]]:
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"wanted a folder with {CONFIG_FILE} and {WEIGHTS_FILE}; {folder} has no {' and no '.join(missing)}"
        )
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        weights = {name: value.float() for name, value in load_file(folder / WEIGHTS_FILE).items()}
        return config | {name: int(config[name]) for name in ("d_in", "d_sae")} | {
            "architecture": config.get("architecture", "standard")
        }, weights
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(
            f"wanted the files of an SAE; those in {folder} are damaged ({error}): get them again"
        ) from None


def _build(config: dict, weights: dict[str, Tensor], folder: Path) -> SAE:
    is_transcoder = config["architecture"] in TRANSCODERS
    kind = (TRANSCODERS if is_transcoder else ARCHITECTURES)[config["architecture"]]
    activation = TopK(int(config["k"])) if kind is TopK else kind()
    d_out = int(config.get("d_out", config["d_in"])) if is_transcoder else None
    sae = SAE(config["d_in"], config["d_sae"], activation, d_out=d_out)
    wanted = {name: tuple(value.shape) for name, value in sae.state_dict().items()}
    came = {name: tuple(value.shape) for name, value in weights.items()}
    if wanted != came:
        wrong = sorted(name for name in wanted | came if wanted.get(name) != came.get(name))
        raise ValueError(
            f"wanted the files of an SAE; those in {folder} are damaged: {wrong[0]} should be of shape "
            f"{wanted.get(wrong[0])} and is {came.get(wrong[0])}. Get them again"
        )
    with torch.no_grad():
        if not is_transcoder and not config.get("apply_b_dec_to_input", True):
            weights["b_enc"] = weights["b_enc"] + weights["b_dec"] @ weights["W_enc"]  # we subtract b_dec, they do not
        if config.get("rescale_acts_by_decoder_norm"):
            norms = weights["W_dec"].norm(dim=-1)
            weights["W_enc"], weights["b_enc"] = weights["W_enc"] * norms, weights["b_enc"] * norms
            weights["W_dec"] = weights["W_dec"] / norms[:, None]
    sae.load_state_dict(weights)
    return sae


def _place(hook: str | None) -> tuple[int, str] | None:
    """Layer and site of a TransformerLens hook, `blocks.15.hook_resid_post`; None for one that we do not know."""
    words = (hook or "").split(".")
    if len(words) < 3 or not words[1].isdigit():
        return None
    site = HOOKS.get(".".join([words[0], "{layer}", *words[2:]]))
    return site and (int(words[1]), site)


def _check_model(sae: SAE, lm: LanguageModel, folder: Path) -> None:
    mine, theirs = (_short(name) for name in (lm.name, sae.model_name or lm.name))
    sizes = {"mlp_pre": lm.d_mlp, "mlp_post": lm.d_mlp}
    read = sae.site if isinstance(sae.site, str) or sae.site is None else sae.site[0]
    right_size = sae.d_in == sizes.get(read, lm.d_model)
    right_layer = sae.layer is None or sae.layer < lm.n_layers
    if not (mine.startswith(theirs) or theirs.startswith(mine)) or not right_size or not right_layer:
        raise ValueError(
            f"wanted an SAE of {lm.name}, whose activations have {lm.d_model} numbers; {folder.name} is one of "
            f"{sae.model_name or 'an unnamed model'} with {sae.d_in}, at layer {sae.layer}: its features mean nothing "
            "here, so load the model that it was trained on"
        )


def _short(name: str) -> str:
    return name.rpartition("/")[2].lower()
