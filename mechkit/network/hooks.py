"""How to read or edit one activation safely. The only file with torch hooks.

`edit` and `read` are context managers: hooks go on when one is entered and come off when it is left, also
through an exception. Edits compose: what an outer one wrote, an inner one and a reader see. No tensor is
changed in place. The limit: an edit reaches the forward passes that run inside its context, in this process.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import KW_ONLY, dataclass
from functools import partial
from inspect import signature
from operator import index
from typing import SupportsIndex

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.utils import ModelOutput

from mechkit.network.attention import Tap, watched
from mechkit.network.model import LanguageModel
from mechkit.network.sites import ATTENTION_SITES, AXES, SITES, WITHOUT_LAYER

Index = int | slice | Sequence[int] | Int[Tensor, " chosen"] | None
Key = str | tuple[str, int]


@dataclass(frozen=True)
class Edit:
    """One change to one site: what `change` returns takes the place of the value there.

    `change` receives a copy of the slice that `head` and `position` choose, and returns the same shape. An int
    removes its axis, a list or slice keeps it. Editing k or v edits every query head that shares them: there
    `head` counts key/value heads. For attn_scores and pattern, `position` is the query's.

    Args:
        site: One of `mechkit.network.sites.SITES`.
        layer: From 0; None for embed and logits, which have no layer.
        change: Takes the value and returns the new one.
        head: Which heads, where the site has heads; None for all.
        position: Which positions; negative ones count from the end; None for all.
    Chapter: 00.
    """

    site: str
    layer: int | None
    change: Callable[[Tensor], Tensor]
    _: KW_ONLY
    head: Index = None
    position: Index = None


@contextmanager
def edit(lm: LanguageModel, *edits: Edit) -> Iterator[None]:
    """Inside, every forward pass of the model runs with these edits, in the order given.

    Raises: ValueError, on entering for a site, layer or head that the model lacks, and on running for a position
        that the prompt lacks or a `change` that returns another shape. It names what exists.
    Chapter: 00.
    """
    for each in edits:
        _check_edit(lm, each)
    with _attached(lm, [(each.site, each.layer, partial(_replace, each)) for each in edits], editing=True):
        yield


@contextmanager
def read(
    lm: LanguageModel, sites: str | Iterable[str] | None = None, layers: int | Iterable[int] | None = None
) -> Iterator[dict[Key, Tensor]]:
    """Inside, every forward pass fills the yielded dict: `(site, layer)`, or `site` for those without a layer.

    The values are the model's own tensors, not copies, with their gradients where those are on.

    Args:
        sites: None for all that the model has.
        layers: None for all.
    Raises: ValueError for a site or a layer that the model lacks; it names what exists.
    """
    seen: dict[Key, Tensor] = {}
    asked = points(lm, sites, layers)
    keys = [site if layer is None else (site, layer) for site, layer in asked]
    with _attached(lm, [(*point, partial(_keep, seen, key)) for point, key in zip(asked, keys, strict=True)]):
        yield seen


@contextmanager
def block_calls(lm: LanguageModel) -> Iterator[dict[int, dict[str, object]]]:
    """Inside, every forward pass fills the yielded dict: layer to the arguments of its block, by name."""
    calls: dict[int, dict[str, object]] = {}

    blocks = [lm.module(lm.family.places["resid_post"].path, layer) for layer in range(lm.n_layers)]
    hooks = [partial(_keep_call, calls, layer) for layer in range(lm.n_layers)]
    handles = [
        block.register_forward_pre_hook(hook, with_kwargs=True) for block, hook in zip(blocks, hooks, strict=True)
    ]
    try:
        yield calls
    finally:
        _remove(handles)


def points(
    lm: LanguageModel, sites: str | Iterable[str] | None = None, layers: int | Iterable[int] | None = None
) -> list[tuple[str, int | None]]:
    """Every (site, layer) that is asked for, checked; the layer is None for embed and logits."""
    sites = lm.sites if sites is None else [sites] if isinstance(sites, str) else list(sites)
    layers = range(lm.n_layers) if layers is None else layers if isinstance(layers, Iterable) else [layers]
    for site in sites:
        _check_site(lm, site)
    numbers = [_check_layer(lm, layer) for layer in layers]
    return [(site, layer) for site in sites for layer in ([None] if site in WITHOUT_LAYER else numbers)]


@contextmanager
def _attached(
    lm: LanguageModel, taps: Sequence[tuple[str, int | None, Tap]], *, editing: bool = False
) -> Iterator[None]:
    """Put every tap on its place, and take all of them off on leaving."""
    inside = [
        (lm.module(lm.family.attention, layer), site, tap) for site, layer, tap in taps if site in ATTENTION_SITES
    ]
    with ExitStack() as stack:
        stack.enter_context(watched(lm.hf, inside))
        for site, layer, tap in taps:
            if site not in ATTENTION_SITES:
                stack.callback(_hook(lm, site, layer, tap).remove)
            if editing and site == "resid_mid":
                stack.enter_context(_carried_on(lm, layer))
        yield


def _hook(lm: LanguageModel, site: str, layer: int | None, tap: Tap) -> RemovableHandle:
    place = lm.family.places[site]
    module = lm.module(place.path, layer)
    if place.side == "input":
        return module.register_forward_pre_hook(lambda _, args: (tap(args[0]), *args[1:]))
    if site == "logits":
        return module.register_forward_hook(lambda _, args, output: _with_logits(output, tap(output.logits)))
    return module.register_forward_hook(lambda _, args, output: tap(output))


def _with_logits(output: ModelOutput, logits: Tensor) -> ModelOutput:
    output.logits = logits
    return output


@contextmanager
def _carried_on(lm: LanguageModel, layer: int) -> Iterator[None]:
    """Let an edited resid_mid be what the block goes on from: `resid_post = resid_mid + mlp_out`.

    The edit itself only reaches the norm before the MLP, while the block keeps its own reference to the old
    value. So the sum is made again here, from the last values of both, whatever else is edited.
    """
    norm, mlp, block = (
        lm.module(lm.family.places[site].path, layer) for site in ("resid_mid", "mlp_out", "resid_post")
    )
    now: dict[str, Tensor] = {}
    late: list[RemovableHandle] = []

    def keep_mid(_: nn.Module, args: tuple, output: Tensor) -> None:
        now["resid_mid"] = args[0]
        _remove(late)
        # set during the pass, so that it runs after every edit of mlp_out, also those of inner contexts
        late.append(mlp.register_forward_hook(keep_mlp))

    def keep_mlp(_: nn.Module, args: tuple, output: Tensor) -> None:
        now["mlp_out"] = output

    def add_again(_: nn.Module, args: tuple, output: Tensor) -> Tensor:
        _remove(late)
        return now.pop("resid_mid") + now.pop("mlp_out")

    # the sum comes before any edit of resid_post
    handles = [norm.register_forward_hook(keep_mid), block.register_forward_hook(add_again, prepend=True)]
    try:
        yield
    finally:
        _remove(handles)
        _remove(late)


def _remove(handles: list[RemovableHandle]) -> None:
    while handles:
        handles.pop().remove()


def _keep_call(calls: dict[int, dict[str, object]], layer: int, block: nn.Module, args: tuple, kwargs: dict) -> None:
    bound = signature(block.forward).bind(*args, **kwargs).arguments
    calls[layer] = bound | bound.pop("kwargs", {})


def _keep(seen: dict[Key, Tensor], key: Key, value: Tensor) -> Tensor:
    seen[key] = value
    return value


def _replace(edit: Edit, value: Tensor) -> Tensor:
    where = _where(edit, value.shape)
    old = value[where]
    new = edit.change(old.clone())
    if not isinstance(new, Tensor) or new.shape != old.shape:
        came = tuple(new.shape) if isinstance(new, Tensor) else f"a {type(new).__name__}"
        fewer = edit.position is None and isinstance(new, Tensor) and new.ndim < old.ndim
        place = ", or give the edit the `position` that it belongs to" if fewer else ""
        raise ValueError(
            f"wanted the change of {_name(edit.site, edit.layer)} to return a tensor of shape {tuple(old.shape)}, "
            f"as it received; came {came}: return the new value, with the same axes{place}"
        )
    edited = value.clone()
    edited[where] = new.to(value)
    return edited


def chosen(edit: Edit, value: Tensor) -> Tensor:
    """The slice of a site's value that an edit is about, as its `change` receives it."""
    return value[_where(edit, value.shape)]


def _where(edit: Edit, shape: Sequence[int]) -> tuple:
    """What to write between the brackets of `value[...]` for this edit's head and position."""
    axes = AXES[edit.site].split()
    chosen: dict[int, int | slice | Tensor] = {}
    for word, wanted in (("position", edit.position), ("head", edit.head)):
        if wanted is not None:
            axis = _axis(axes, word)
            chosen[axis] = _checked(edit, word, wanted, shape[axis])
    lists = [axis for axis, each in chosen.items() if isinstance(each, Tensor)]
    if len(lists) == 2:
        # every chosen head at every chosen position, not one position a head
        chosen[min(lists)] = chosen[min(lists)][:, None]
    return tuple(chosen.get(axis, slice(None)) for axis in range(len(axes)))


def _axis(axes: Sequence[str], word: str) -> int | None:
    """Where `head` or `position` is among a site's axes, if it is."""
    names = ("head", "kv_head") if word == "head" else ("pos", "query")
    return next((axis for axis, name in enumerate(axes) if name in names), None)


def _checked(edit: Edit, word: str, wanted: Index, size: int) -> int | slice | Tensor:
    """The index as torch takes it, once it lies within the axis."""
    if isinstance(wanted, slice):
        outside = [] if range(size)[wanted] else [wanted]
    else:
        numbers = [wanted] if isinstance(wanted, int) else torch.as_tensor(wanted).flatten().tolist()
        outside = [number for number in numbers if type(number) is not int or not -size <= number < size]
    if outside:
        raise ValueError(
            f"wanted a {word} of {_name(edit.site, edit.layer)}, which has {size}: 0 to {size - 1}, "
            f"or -{size} to -1 from the end; came {outside[0]}"
        )
    return wanted if isinstance(wanted, int | slice) else torch.as_tensor(wanted, dtype=torch.long)


def _check_edit(lm: LanguageModel, edit: Edit) -> None:
    if not callable(edit.change):
        raise ValueError(
            f"wanted `change` of {_name(edit.site, edit.layer)} to be a function from the old value to the new one; "
            f"came a {type(edit.change).__name__}: to put in a tensor, write lambda old: tensor"
        )
    _check_site(lm, edit.site)
    if (edit.layer is None) != (edit.site in WITHOUT_LAYER):
        wanted = "no layer: layer=None" if edit.site in WITHOUT_LAYER else f"a layer, 0 to {lm.n_layers - 1}"
        raise ValueError(f"{edit.site} takes {wanted}; came layer={edit.layer}")
    if edit.layer is not None:
        _check_layer(lm, edit.layer)
    if edit.head is not None:
        _check_head(lm, edit)


def _check_head(lm: LanguageModel, edit: Edit) -> None:
    axes = AXES[edit.site].split()
    axis = _axis(axes, "head")
    if axis is None:
        with_heads = [site for site in lm.sites if _axis(AXES[site].split(), "head") is not None]
        raise ValueError(f"{edit.site} has no heads; sites that have them: {', '.join(with_heads)}")
    _checked(edit, "head", edit.head, lm.n_kv_heads if axes[axis] == "kv_head" else lm.n_heads)


def _check_site(lm: LanguageModel, site: str) -> None:
    if site not in SITES:
        raise ValueError(f"wanted a site; came {site!r}: use one of {', '.join(lm.sites)}")
    if site not in lm.sites:
        raise ValueError(f"{lm.name} runs attention and MLP in parallel, so it has no {site}; use resid_pre")


def _check_layer(lm: LanguageModel, layer: SupportsIndex) -> int:
    if isinstance(layer, SupportsIndex) and 0 <= (number := index(layer)) < lm.n_layers:
        return number
    raise ValueError(f"wanted a layer of {lm.name}, 0 to {lm.n_layers - 1}; came {layer!r}")


def _name(site: str, layer: int | None) -> str:
    return site if layer is None else f"{site} at layer {layer}"
