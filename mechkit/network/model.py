"""What a model offers to someone who wants to read it: tokens, labels, and its weights by their usual names.

`LanguageModel` leaves the Hugging Face model as it is and adds what interpretability asks of it: tokens with
an explicit prefix, a readable label for each, and every weight matrix under the name and axes of the
literature. The limit: only families with a row in `sites.FAMILIES`.
"""

from collections.abc import Sequence
from types import EllipsisType

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from mechkit.network.sites import SITES, Family, family_of

END_OF_TEXT = "<|endoftext|>"
LISTED = 12  # a longer list of tokens or lengths is cut in an error message


class LanguageModel:
    """A causal language model in float32, ready to be read: evaluation mode, no gradients for its weights.

    Weights are views of the model's own, with axes so that matrices multiply on the right.

    Args:
        hf: The Hugging Face model; its family must have a row in `sites.FAMILIES`.
        tokenizer: Its tokenizer.
        name: What to call it in messages.
    Raises: ValueError for a family without a row; it lists those that have one.
    Chapter: 00.
    """

    def __init__(self, hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str):
        config = hf.config
        self.family: Family = family_of(config.model_type)
        self.hf = hf.eval().requires_grad_(False)
        # the one implementation whose results do not depend on whether its inside is watched
        hf.set_attn_implementation("eager")
        self._modules = dict(hf.named_modules())
        self.tokenizer = tokenizer
        self.name = name
        self.n_layers: int = config.num_hidden_layers
        self.n_heads: int = config.num_attention_heads
        self.n_kv_heads: int = getattr(config, "num_key_value_heads", None) or self.n_heads
        self.d_model: int = config.hidden_size
        self.d_head: int = getattr(config, "head_dim", None) or self.d_model // self.n_heads
        self.d_mlp: int = _width(config)
        self.d_vocab: int = config.vocab_size
        self.n_ctx: int = config.max_position_embeddings
        parallel = getattr(config, "use_parallel_residual", False)
        self.sites: tuple[str, ...] = tuple(site for site in SITES if not (parallel and site == "resid_mid"))
        self.prefix: str | None = tokenizer.bos_token if self._whole(END_OF_TEXT) is None else END_OF_TEXT

    def __repr__(self) -> str:
        return (
            f"LanguageModel({self.name!r}: {self.n_layers} layers, {self.n_heads} heads, "
            f"{self.n_kv_heads} key/value heads, d_model {self.d_model}, prefix {self.prefix!r})"
        )

    def tokens(
        self, prompt: str | Sequence[str] | Tensor, prefix: str | EllipsisType | None = ...
    ) -> Int[Tensor, "batch pos"]:
        """Token ids, with the prefix in front and nothing else added.

        Args:
            prompt: A text, several texts of equally many tokens, or ids, which pass through as they are.
            prefix: The token put before each text; by default the model's own (`lm.prefix`), None for none.
        Raises: ValueError for an empty prompt, texts of unequal length, a prompt longer than the context, ids
            outside the vocabulary, or a prefix that is not a token.
        Chapter: 00.
        """
        if isinstance(prompt, Tensor):
            ids = self._checked_ids(prompt)
        else:
            texts = [prompt] if isinstance(prompt, str) or not isinstance(prompt, Sequence) else prompt
            before = self._prefix_ids(self.prefix if prefix is ... else prefix)
            ids = torch.tensor([before + row for row in self._rows(texts)])
        if ids.shape[1] > self.n_ctx:
            raise ValueError(
                f"wanted at most {self.n_ctx} tokens, the context of {self.name}; came {ids.shape[1]}: "
                "shorten the prompt"
            )
        return ids.to(self.hf.device)

    def labels(self, ids: Sequence[int] | Int[Tensor, " pos"]) -> list[str]:
        """One readable string a token: leading spaces kept, a line break as "⏎", broken bytes as "\\xNN"."""
        return [self._label(int(each)) for each in ids]

    def text(self, ids: Sequence[int] | Int[Tensor, " pos"]) -> str:
        """The text that the ids spell."""
        return self.tokenizer.decode([int(each) for each in ids], clean_up_tokenization_spaces=False)

    def token_id(self, text: str) -> int:
        """The id of a text that is one token, such as " Paris" (mark the leading space).

        Raises: ValueError that shows the pieces, if it is not one token.
        """
        ids = self._encode(text)
        if len(ids) != 1:
            # a tokenizer in SentencePiece's style puts a space before every text, and marks spaces so
            whole = self._whole(text.replace(" ", "▁"))
            ids = ids if whole is None else [whole]
        if len(ids) != 1:
            raise ValueError(
                f"wanted one token; came {text!r}, which {self.name} reads as {len(ids)}: {self.labels(ids[:LISTED])}. "
                "Choose another word, or check its leading space"
            )
        return ids[0]

    def module(self, path: str, layer: int | None = None) -> nn.Module:
        """The module at a path of `sites.FAMILIES`."""
        return self._modules[path.format(layer=layer)]

    @property
    def final_norm(self) -> nn.Module:
        """The norm between the last residual stream and the unembedding."""
        return self.module(self.family.final_norm)

    def post_attention_norm(self, layer: int) -> nn.Module | None:
        """The norm between the heads' sum and the residual stream: Gemma 2 has one, the others have none."""
        path = self.family.post_attention_norm
        return None if path is None else self.module(path, layer)

    def unembed(self, normed: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """Logits from a normed residual stream: `normed @ W_U`, then the bias and soft cap that the model has."""
        logits = self.hf.get_output_embeddings()(normed)
        cap = getattr(self.hf.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        """The embedding; Gemma 2 also multiplies by sqrt(d_model) on the way into the stream."""
        return self.hf.get_input_embeddings().weight

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        """The unembedding; in many models the embedding, transposed."""
        return self.hf.get_output_embeddings().weight.T

    def W_Q(self, layer: int) -> Float[Tensor, "head d_model d_head"]:
        """Each head's query matrix."""
        return self._input_matrix(layer, 0, self.n_heads)

    def W_K(self, layer: int) -> Float[Tensor, "kv_head d_model d_head"]:
        """Each key/value head's key matrix; query head h uses number `h // (n_heads / n_kv_heads)`."""
        return self._input_matrix(layer, 1, self.n_kv_heads)

    def W_V(self, layer: int) -> Float[Tensor, "kv_head d_model d_head"]:
        """Each key/value head's value matrix."""
        return self._input_matrix(layer, 2, self.n_kv_heads)

    def W_O(self, layer: int) -> Float[Tensor, "head d_head d_model"]:
        """Each head's output matrix: `sum over heads of z @ W_O`, plus `b_O`, is what attention gives."""
        return _matrix(self._projection(layer, 3)).unflatten(0, (self.n_heads, self.d_head))

    def b_O(self, layer: int) -> Float[Tensor, " d_model"]:
        """The bias added to the heads' sum; zeros where the family has none."""
        bias = self._projection(layer, 3).bias
        return torch.zeros(self.d_model, device=self.hf.device) if bias is None else bias

    def W_out(self, layer: int) -> Float[Tensor, "d_mlp d_model"]:
        """The MLP's last matrix: `mlp_post @ W_out`, plus a bias where there is one, is what the MLP gives."""
        return _matrix(self.module(self.family.places["mlp_post"].path, layer))

    def _projection(self, layer: int, which: int) -> nn.Module:
        return self.module(f"{self.family.attention}.{self.family.projections[which]}", layer)

    def _input_matrix(self, layer: int, which: int, heads: int) -> Float[Tensor, "head d_model d_head"]:
        matrix = _matrix(self._projection(layer, which))
        sizes = {"qkv": 3, "head": heads, "d_head": self.d_head}
        axes = self.family.packing.split()
        split = matrix.unflatten(1, [sizes[axis] for axis in axes])
        if "qkv" in axes:
            split = split.select(1 + axes.index("qkv"), which)
        return split.permute(1, 0, 2)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def _rows(self, texts: Sequence[str]) -> list[list[int]]:
        wrong = [type(text).__name__ for text in texts if not isinstance(text, str)]
        if wrong:
            raise ValueError(f"wanted a text or a list of texts; came {wrong[0]}: pass ids as a tensor")
        rows = [self._encode(text) for text in texts]
        if not rows or not all(rows):
            raise ValueError("wanted at least one token of text; came an empty prompt: write something")
        lengths = [len(row) for row in rows]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"wanted prompts of equally many tokens; came {lengths[:LISTED]}: "
                "reword them, or run them one at a time (nothing is padded)"
            )
        return rows

    def _prefix_ids(self, prefix: str | None) -> list[int]:
        if prefix is None:
            return []
        token = self._whole(prefix)
        if token is None:
            raise ValueError(
                f"wanted a prefix that is one token of {self.name}; came {prefix!r}: "
                f"use {self.prefix!r}, or None for no prefix"
            )
        return [token]

    def _whole(self, piece: str) -> int | None:
        """The id of a piece as the vocabulary spells it, if it is there."""
        token = self.tokenizer.convert_tokens_to_ids(piece)
        # an unknown piece may come back as the id of the "unknown" token
        return token if token is not None and self.tokenizer.convert_ids_to_tokens(token) == piece else None

    def _checked_ids(self, ids: Tensor) -> Int[Tensor, "batch pos"]:
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool or ids.ndim not in (1, 2):
            raise ValueError(
                f"wanted token ids, whole numbers of shape (pos,) or (batch, pos); came {ids.dtype} of shape "
                f"{tuple(ids.shape)}"
            )
        if ids.numel() == 0:
            raise ValueError("wanted at least one token; came an empty prompt: write something")
        if not 0 <= ids.min() <= ids.max() < self.d_vocab:
            raise ValueError(
                f"wanted ids from 0 to {self.d_vocab - 1}, the vocabulary of {self.name}; "
                f"came {ids.min().item()} to {ids.max().item()}"
            )
        return ids.long().reshape(-1, ids.shape[-1])

    def _label(self, token: int) -> str:
        piece = self.tokenizer.convert_ids_to_tokens(token)
        text = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        if piece is None:
            return f"<{token}>"
        if "▁" in piece:
            text = piece.replace("▁", " ")
        elif "�" in text:
            text = _bytes_label(piece)
        return text.replace("\n", "⏎")


def _width(config: PreTrainedConfig) -> int:
    return getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * config.hidden_size


def _matrix(module: nn.Module) -> Float[Tensor, "d_in d_out"]:
    """A linear module's weight so that `x @ matrix` is what it computes; GPT-2 stores it so, the others turned."""
    return module.weight if isinstance(module, Conv1D) else module.weight.T


def _bytes_label(piece: str) -> str:
    """A byte-level piece that is not whole characters, with the stray bytes written out."""
    if any(character not in BYTE_OF for character in piece):
        return piece
    return bytes(BYTE_OF[character] for character in piece).decode("utf-8", errors="backslashreplace")


def _byte_alphabet() -> dict[str, int]:
    """Byte-level tokenizers write each byte as one visible character: printable ones as themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    moved = {chr(256 + number): byte for number, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | moved


BYTE_OF = _byte_alphabet()
