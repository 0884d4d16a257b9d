"""One manner for every explorer: where things stand, what they are called, and what room they keep."""

import re

import ipywidgets as widgets
import pytest
import torch

from mechkit.data.probe_results import ProbeSweep
from mechkit.methods.editing import Request
from mechkit.show.explorers import (
    AnalogyExplorer,
    AnalogyReading,
    CircuitExplorer,
    FactExplorer,
    FeatureExplorer,
    Gallery,
    HeadExplorer,
    HeadReading,
    LensExplorer,
    PatchExplorer,
    ProbeExplorer,
    SteerExplorer,
    Steering,
    SuperpositionExplorer,
    fact_reading,
    lens_reading,
    panel,
    patch_reading,
)
from mechkit.show.features import FeatureCard

TOKENS = [" a", " b", " c"]
CHOICES = (widgets.ToggleButtons, widgets.SelectionSlider, widgets.Checkbox, widgets.Text, widgets.BoundedIntText)


def names(ids):
    return [f" t{index}" for index in ids.tolist()]


def lens(prompt):
    return {"plain": lens_reading(torch.randn(3, 3, 8), TOKENS, range(3), name=names)}


def heads(text):
    return HeadReading(TOKENS, torch.full((2, 3, 3, 3), 1 / 3).tril())


def patched():
    ends = {name: torch.randn(8) for name in ("corrupted", "clean")}
    return patch_reading(torch.randn(2, 3, 8), ends, TOKENS, first=1, answers=(0, 1), name=names)


def facts():
    before = torch.randn(4, 8)
    return fact_reading(["The tower is in", "b", "c", "d"], before, before.roll(1, 1), name=names)


def sweep():
    measures = ("new words", "outside", "outside, order", "known words", "control")
    return ProbeSweep((0, 1), 0.5, {name: torch.rand(2, 2) for name in measures})


MAKE = {
    "steer": lambda: SteerExplorer(Steering([-1.0, 0.0, 1.0], TOKENS, torch.rand(3, 3), torch.rand(3, 3))),
    "superposition": lambda: SuperpositionExplorer(Gallery([0.0, 0.9], {n: torch.randn(2, n, 2) for n in (3, 4)})),
    "analogy": lambda: AnalogyExplorer({"x": lambda a, b, c, *_: AnalogyReading((a, b, c), [("d", 0.5)])}),
    "probes": lambda: ProbeExplorer({"number": sweep(), "truth": sweep()}),
    "lens": lambda: LensExplorer(lens, "a b"),
    "heads": lambda: HeadExplorer(heads, "a b", scores={}),
    "circuit": lambda: CircuitExplorer({"mover": [(1, 2)]}, lambda *_: torch.ones(2)),
    "patch": lambda: PatchExplorer(patched()),
    "features": lambda: FeatureExplorer(lambda i: FeatureCard(i, 0.1, []), 5, lambda _: [(1, 0.5)], token="a"),
    "facts": lambda: FactExplorer(lambda *_: facts(), Request("The tower is in", "tower", " Rome"), facts()),
}
every = pytest.mark.parametrize("make", MAKE.values(), ids=list(MAKE))


def inside(widget):
    for child in getattr(widget, "children", ()):
        yield child
        yield from inside(child)


def controls(explorer):
    kinds = (widgets.ValueWidget, widgets.Button)
    return [each for each in inside(explorer.box) if isinstance(each, kinds) and not isinstance(each, widgets.HTML)]


@every
def test_every_control_has_a_label_a_tooltip_and_answers_to_the_keyboard(make):
    explorer = make()
    for control in controls(explorer):
        if isinstance(control, widgets.Label):
            continue
        assert isinstance(control, (*CHOICES, widgets.Button)), f"{type(control)} loses its arrow keys to JupyterLab"
        assert control.description
        assert control.tooltip, control.description
        if isinstance(control, widgets.ToggleButtons):
            assert len(control.tooltips) == len(control.options)


@every
def test_controls_stand_on_top_then_words_then_the_view(make):
    explorer = make()
    look, *rows = explorer.box.children
    assert "mk-explorer" in explorer.box._dom_classes
    assert ":focus-visible" in look.value
    place = rows.index(explorer.panel.message)
    assert rows[place + 1] is explorer.panel.view
    assert all(isinstance(row, widgets.HBox) and row.layout.flex_flow == "row wrap" for row in rows[:place])


@every
def test_words_are_read_aloud_and_room_is_kept_for_them(make):
    said = make().panel.message.value
    assert re.match(r'<div role="status" aria-live="polite" class="mk-words" style="--mk-lines:\d">', said)


@every
def test_an_explorer_brings_no_script_and_asks_no_network(make):
    shown = "".join(each.value for each in inside(make().box) if isinstance(each, widgets.HTML))
    assert not re.search(r"<script|http|url\(", shown)


def test_trouble_is_one_escaped_sentence_with_its_kind_unless_that_is_a_value():
    shown = panel.Panel("x", [])
    shown.trouble(ValueError("<wrong>"))
    assert 'class="mk-error">&lt;wrong&gt;</span>' in shown.message.value
    shown.trouble(RuntimeError("out of memory"))
    assert "RuntimeError: out of memory" in shown.message.value


def test_a_bar_shows_its_length_a_mark_and_a_scatter():
    html = panel.bar(0.5, panel.SHARE, mark=0.25, scatter=(0.4, 0.6))
    assert re.findall(r"(?:left|width):([\d.]+)%", html) == ["50.0", "40.0", "20.0", "25.0"]
    assert "<b" not in panel.bar(0.5, panel.SHARE)


def contrast(one, other):
    def light(color):
        parts = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
        return sum(weight * x for weight, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True)) + 0.05

    return max(light(one), light(other)) / min(light(one), light(other))


@pytest.mark.parametrize("color", [panel.SHARE, panel.ABOVE, panel.BELOW, panel.OTHER, panel.CONTROL])
def test_bars_stand_out_from_their_track_in_both_themes(color):
    assert min(contrast(color, "#eeeeee"), contrast(color, "#424242")) > 2.7
