"""The patch explorer: every cell can be clicked or moved to, and says what the patched run says."""

import re

import pytest
import torch

from mechkit.show import style
from mechkit.show.explorers import PatchExplorer, patch_reading, patch_table

WORDS = [" Mary", " John", " the", "<b>", "\n", " a", " to"]


def name(ids):
    return [WORDS[int(each)] for each in ids]


@pytest.fixture
def reading():
    """Three layers, four positions, of which the last two can change; the right token is 0, the wrong one 1."""
    generator = torch.Generator().manual_seed(0)
    corrupted, clean = torch.randn(2, 7, generator=generator)
    corrupted[:2], clean[:2] = torch.tensor([1.0, 3.0]), torch.tensor([3.0, 1.0])
    share = torch.tensor([[0, 0, 1.0, 0], [0, 0, 0.6, 0.5], [0, 0, -0.2, 0.9]])
    logits = torch.lerp(corrupted, clean, share[..., None])
    labels = [" When", " Mary", " John", " to"]
    return patch_reading(logits, {"corrupted": corrupted, "clean": clean}, labels, first=2, answers=(0, 1), name=name)


def plain(html):
    return re.sub(r"<style>.*?</style>|<[^>]+>", "", html, flags=re.DOTALL)


def test_recovery_is_the_share_of_the_way(reading):
    torch.testing.assert_close(reading.recovery[:, 2], torch.tensor([1.0, 0.6, -0.2]))
    assert reading.tokens[0][2][0] == reading.ends["clean"][0][0]


def test_it_opens_at_the_largest_recovery(reading):
    shown = PatchExplorer(reading)
    assert (shown.layer.value, shown.position.value) == (0, 2)
    said = plain(shown.message.value)
    assert said == (
        "Clean stream before layer 0 put back at ␣John (position 2): logit difference +2.0 "
        "(corrupted -2.0, clean +2.0), recovery 1.0."
    )
    assert 'role="status" aria-live="polite"' in shown.message.value


def test_a_click_and_the_sliders_go_to_the_same_cell(reading):
    clicked, moved = PatchExplorer(reading), PatchExplorer(reading)
    clicked.cells[1, 3].click()
    moved.layer.value, moved.position.value = 1, 3
    assert clicked.message.value == moved.message.value
    assert clicked.table.value == moved.table.value
    assert "before layer 1 put back at ␣to" in clicked.message.value
    assert "mk-here" in clicked.cells[1, 3]._dom_classes
    assert "mk-here" not in clicked.cells[0, 2]._dom_classes


def test_only_cells_that_a_patch_can_change_are_offered(reading):
    shown = PatchExplorer(reading)
    assert sorted(shown.cells) == [(layer, position) for layer in range(3) for position in (2, 3)]
    assert shown.cells[2, 2].description == "-0.20"
    assert shown.cells[2, 2].tooltip == "layer 2, ␣John: recovery -0.20"
    assert shown.cells[0, 3].description == "0.00"
    colors = [shown.cells[place].style.button_color for place in ((0, 3), (0, 2), (2, 2))]
    assert len(set(colors)) == 3


def test_patched_stands_between_corrupted_and_clean(reading):
    shown = PatchExplorer(reading)
    head = re.findall(r'<th scope="col">(.*?)</th>', shown.table.value)
    assert head == ["likeliest", "corrupted", "patched", "clean"]
    assert shown.table.value.count("<tr>") == 6
    assert "<b>" not in shown.table.value


def test_the_still_twin_has_every_cell(reading, monkeypatch):
    twin = patch_table(reading)
    assert twin.html.count("<tr>") == 4
    assert twin.text.splitlines()[1].split()[:2] == ["0", "1.0"]
    shown = []
    monkeypatch.setattr(style, "display", lambda thing, raw=False: shown.append(thing))
    PatchExplorer(reading)._ipython_display_()
    live, still = shown
    assert "application/vnd.jupyter.widget-view+json" in live
    assert "<table" in still.html
    assert "http" not in still.html
    assert still.text == ("Recovery by layer (3) and position; largest: ␣John 1.0 at layer 0, ␣to 0.90 at layer 2.")


def test_equal_ends_recover_nothing(reading):
    ends = {"corrupted": torch.zeros(7), "clean": torch.zeros(7)}
    flat = patch_reading(torch.zeros(2, 2, 7), ends, [" a", " to"], first=1, answers=(0, 1), name=name)
    assert torch.equal(PatchExplorer(flat).reading.recovery, torch.zeros(2, 2))
