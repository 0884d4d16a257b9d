"""The probe explorer: every property and layer, its controls, and a twin that stays."""

import re

import pytest
import torch

from mechkit.data.probe_results import ProbeSweep, load_probe_results
from mechkit.show import style
from mechkit.show.captions import percent
from mechkit.show.explorers import ProbeExplorer, probe_table


def sweep(layers=(0, 5, 9), seeds=3, *, high=0.9, chance=0.5):
    rise = torch.linspace(chance, high, len(layers))
    wobble = 0.01 * torch.arange(seeds)[:, None]
    names = ("new words", "outside", "outside, order", "known words", "control")
    return ProbeSweep(layers, chance, {name: rise - 0.1 * place + wobble for place, name in enumerate(names)})


def explorer():
    return ProbeExplorer({"number": sweep(), "<truth>": sweep((0, 1), high=0.7)})


def plain(html):
    return re.sub(r"<style>.*?</style>|<[^>]+>", "", html, flags=re.DOTALL)


def test_moving_the_layer_redraws():
    shown = explorer()
    assert plain(shown.message.value).startswith("number at layer 5. New words 71%, outside 61%; selectivity +0.10")
    before = shown.table.value
    shown.layer.value = 2
    assert shown.table.value != before
    assert "number at layer 9." in shown.message.value
    assert shown.table.value.count("<tr>") == 5
    assert "91% ± 1.0%" in shown.table.value


def test_another_property_keeps_the_depth_where_it_can():
    shown = explorer()
    shown.layer.value = 2
    shown.property.value = "<truth>"
    assert shown.layer.options == (("0", 0), ("1", 1))
    assert plain(shown.message.value).startswith("&lt;truth&gt; at layer 1.")


def test_every_property_and_layer_of_the_chapter_says_what_was_measured():
    sweeps = load_probe_results()
    shown = ProbeExplorer(sweeps)
    for name, each in sweeps.items():
        shown.property.value = name
        assert [text for text, _ in shown.layer.options] == [str(layer) for layer in each.layers]
        for place in (0, len(each.layers) - 1):
            shown.layer.value = place
            said, bars = plain(shown.message.value), shown.table.value
            assert said.startswith(f"{name} at layer {each.layers[place]}. New words")
            assert said.endswith(f"chance {100 * each.chance:.0f}%.")
            for measured in each.measures.values():
                assert f"</span>{percent(measured[:, place].mean())} ± {percent(measured[:, place].std())}" in bars


def test_chance_is_marked_and_the_readout_announced():
    shown = ProbeExplorer({"language": sweep(chance=0.25)})
    assert shown.table.value.count('<b style="left:25.0%">') == 4
    assert shown.table.value.count('<b style="left:50.0%">') == 1  # an AUC's chance is one half
    assert 'role="status" aria-live="polite"' in shown.message.value


def test_one_seed_has_no_scatter():
    assert "± 0%" in ProbeExplorer({"number": sweep(seeds=1)}).table.value


def test_the_table_has_every_layer_and_selectivity():
    twin = probe_table(sweep())
    assert twin.html.count("<tr>") == 4
    assert twin.text.splitlines()[0].split()[-1] == "selectivity"
    assert twin.text.splitlines()[1].split()[-1] == "+0.10"


def test_a_widget_and_a_twin_of_all_properties_are_shown(monkeypatch):
    shown = []
    monkeypatch.setattr(style, "display", lambda thing, raw=False: shown.append(thing))
    explorer()._ipython_display_()
    live, still = shown
    assert "application/vnd.jupyter.widget-view+json" in live
    assert still.html.count("<table") == 2
    assert "<truth>" not in still.html
    assert "http" not in still.html
    assert still.text.splitlines()[0].startswith("number: new words read best at layer 9; there new words 91%,")


def test_nothing_to_explore_is_said():
    with pytest.raises(ValueError, match="wanted at least one sweep to explore; came none"):
        ProbeExplorer({})
