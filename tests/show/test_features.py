"""A feature's card, its explorer, and the pictures of a dictionary: every number said, no markup of the text."""

import re

import matplotlib.pyplot as plt
import pytest
import torch

from mechkit.methods.sae import SAE, TopK
from mechkit.methods.sae_activations import gather
from mechkit.network.tiny import tiny_model
from mechkit.show import style
from mechkit.show.explorers import FeatureExplorer
from mechkit.show.features import (
    FeatureCard,
    density_histogram,
    feature_card,
    feature_dashboard,
    label_scores,
    tradeoff,
)


def card(number=3, **settings):
    examples = [(["The", " <b>", " cat", "\n"], [0.0, 2.0, 0.5, 0.0]), (["a", " dog"], [0.0, 1.0])]
    return FeatureCard(
        number,
        **({"density": 0.034, "examples": examples, "promoted": [(" sat", 1.3)], "label": "animals"} | settings),
    )


def plain(html):
    return re.sub(r"<style>.*?</style>|<[^>]+>", "", html, flags=re.DOTALL)


def explorer(cards=None, find=None, **settings):
    cards = cards if cards is not None else card
    return FeatureExplorer(cards, 5, find or (lambda token: [(2, 1.5), (4, 0.5)]), **settings)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_dashboard_says_density_label_promoted_tokens_and_every_activation_in_words():
    twin = feature_dashboard(card(suppressed=[(" ran", -0.5)]))
    assert twin.text.splitlines() == [
        "feature 3 · on for 3.4% of tokens · animals",
        "promoted: ␣sat +1.3",
        "suppressed: ␣ran -0.50",
        "   2.0  The[ <b> 2.0][ cat 0.50]↵",
        "   1.0  a[ dog 1.0]",
    ]


def test_a_dashboard_is_safe_marks_what_is_on_and_leaves_the_letters_to_the_theme():
    html = feature_dashboard(card()).html
    assert "<b> " not in html
    assert "&lt;b&gt;" in html
    assert html.count('class="mk-on"') == 3
    assert "background:rgba(126,87,194,0.65)" in html  # the strongest of all
    assert "var(--jp-ui-font-color1,inherit)" in html
    assert "http" not in html


def test_a_long_passage_is_cut_around_its_peak():
    values = [0.0] * 40
    values[30] = 1.0
    text = feature_dashboard(card(examples=[([f" w{i}" for i in range(40)], values)])).text
    assert "…  w18" in text
    assert "w17" not in text
    assert "[ w30 1.0]" in text
    assert text.endswith("w39")


def test_a_card_wants_an_activation_a_token():
    with pytest.raises(ValueError, match="wanted an activation for each of 2 tokens; came 1"):
        card(examples=[(["a", "b"], [1.0])])


def test_a_feature_that_is_never_on_has_a_card_too():
    twin = feature_dashboard(FeatureCard(0, 0.0, []))
    assert twin.text == "feature 0 · on for 0% of tokens" or "feature 0" in twin.text
    assert "nowhere" in explorer(lambda number: FeatureCard(number, 0.0, [])).message.value


def test_browsing_by_number_and_by_step_makes_each_card_once():
    asked = []
    shown = explorer(lambda number: asked.append(number) or card(number))
    shown.number.value = 4
    shown.after.click()
    assert shown.number.value == 0
    shown.before.click()
    assert shown.number.value == 4
    assert asked == [0, 4]
    assert plain(shown.dashboard.value).startswith("feature 4 ")
    assert "Feature 4 of 5." in shown.message.value
    assert 'role="status" aria-live="polite"' in shown.message.value


def test_a_search_lists_features_and_choosing_one_goes_there():
    shown = explorer()
    assert shown.found.layout.visibility == "hidden"  # its room is kept
    shown.token.value = " cat"
    assert shown.found.options == (("2 (1.5)", 2), ("4 (0.50)", 4))
    assert "2 features are on most at “␣cat”; strongest: feature 2." in shown.message.value
    assert shown.number.value == 0
    shown.found.value = 4
    assert shown.number.value == 4
    shown.token.value = ""
    assert shown.found.options == ()


def test_a_search_that_finds_nothing_and_one_that_fails_say_so():
    assert "No feature is on at “x”" in explorer(find=lambda token: [], token="x").message.value

    def broken(token):
        raise KeyError(f"<{token}>")

    shown = explorer(find=broken, token="x")
    assert "KeyError: &#x27;&lt;x&gt;&#x27;" in shown.message.value
    assert shown.dashboard.value


def test_trouble_with_a_card_becomes_a_sentence_and_the_last_card_stays():
    def only_first(number):
        if number:
            raise ValueError("wanted feature 0")
        return card(number)

    shown = explorer(only_first)
    before = shown.dashboard.value
    shown.number.value = 1
    assert "wanted feature 0" in shown.message.value
    assert shown.dashboard.value == before
    with pytest.raises(ValueError, match="wanted a first feature from 0 to 4; came 9"):
        explorer(start=9)


def test_a_widget_and_its_twin_are_shown(monkeypatch):
    shown = []
    monkeypatch.setattr(style, "display", lambda thing, raw=False: shown.append(thing))
    explorer(start=2)._ipython_display_()
    live, still = shown
    assert "application/vnd.jupyter.widget-view+json" in live
    assert still.text.startswith("feature 2 · on for 3.4% of tokens")

    def never(number):
        raise ValueError("no")

    explorer(never)._ipython_display_()
    assert shown[3].text == "No feature was read."


def test_a_tradeoff_says_every_run_sorted_by_price():
    ax = tradeoff({"ReLU": [(50, 0.8), (5, 0.4), (0, 0.0)], "TopK": [(32, 0.9)]}, names={"ReLU": ["0.1", "1", "9"]})
    alt, rows = ax.mechkit_caption
    assert rows[1:] == [["ReLU 1", "5.0", "0.40"], ["ReLU 0.1", "50", "0.80"], ["TopK", "32", "0.90"]]
    assert alt.startswith("variance explained by L0: features on per token. ReLU 1: 0.40 at 5.0; ")
    assert ax.get_xscale() == "log"


def test_a_histogram_counts_every_feature_once():
    shares = torch.tensor([0.0, 1e-7, 2e-4, 0.02, 0.5, 1.0])
    ax = density_histogram({"one": shares, "two": shares[:1]})
    alt, rows = ax.mechkit_caption
    assert sum(int(row[1]) for row in rows[1:]) == 6
    assert rows[1] == ["never", "1", "1"]
    assert "one: 1 never on, 5 on; two: 1 never on, 0 on" in alt


def test_label_scores_name_each_kinds_median():
    ax = label_scores({"features": [0.9, 0.8, 1.0], "random": [0.5]})
    assert ax.mechkit_caption[0] == "Median detection score: features 0.90, random 0.50."


def test_a_card_is_made_from_activations():
    lm = tiny_model()
    acts = gather(lm, ["Mary gave John a book in Paris", "the king of France drank"])
    sae = SAE(lm.d_model, 64, TopK(4))
    hidden = sae.encode(acts.x).detach()
    feature = int((hidden > 0).sum(0).argmax())
    made = feature_card(lm, sae, hidden, acts, feature, label="x", n=1)
    assert (made.number, made.label, len(made.examples)) == (feature, "x", 1)
    assert made.density == pytest.approx(float((hidden[:, feature] > 0).float().mean()))
    assert max(made.examples[0][1]) == pytest.approx(float(hidden[:, feature].max()))
    assert [value for _, value in made.promoted] == sorted((value for _, value in made.promoted), reverse=True)
    assert made.suppressed[0][1] < 0 < made.promoted[0][1]
