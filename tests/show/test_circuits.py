"""The circuit graph, and the explorer that switches its heads off."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from mechkit.show import style
from mechkit.show.circuits import circuit_graph, circuit_layout, role_looks
from mechkit.show.explorers import CircuitExplorer, circuit_rows

ROLES = {"mover <1>": [(5, 0), (5, 2)], "inhibition": [(3, 1)], "negative": [(6, 3)], "none": []}
LINES = [((5, 0), "logits", 0.8), ((5, 2), "logits", 0.3), ((6, 3), "logits", -0.7), ((3, 1), (5, 0), 0.2)]


class Compute:
    """Each head is worth one, the negative one minus one; the rest of the model another two. Counts its calls."""

    def __init__(self):
        self.asked = []

    def __call__(self, off, alone):
        self.asked.append((off, alone))
        if (3, 1) in off and (5, 0) in off and (5, 2) in off:
            raise ValueError("nothing <left>")
        if len(off) == 4:
            raise RuntimeError("out of memory")
        worth = sum(-1.0 if head == (6, 3) else 1.0 for head in {(5, 0), (5, 2), (3, 1), (6, 3)} - off)
        return torch.tensor([worth, worth + 1]) + (0.0 if alone else 2.0)


def plain(html):
    return re.sub(r"<style>.*?</style>|<[^>]+>", "", html, flags=re.DOTALL)


def test_a_head_stands_in_its_layers_row_and_nobody_stands_on_another():
    places = circuit_layout(ROLES)
    assert [places[head][1] for head in ((3, 1), (5, 0), (5, 2), (6, 3))] == [0, 1, 1, 2]
    assert len(set(places.values())) == 4
    assert all(-0.5 <= x <= 0.5 for x, _ in places.values())


def test_no_two_roles_look_alike():
    looks = role_looks({f"role {number}": [] for number in range(12)})
    assert len({color for color, _ in looks.values()}) == 12
    assert len({marker for _, marker in looks.values()}) == 12


def test_the_graph_names_every_head_and_says_so_twice():
    ax = circuit_graph(ROLES, LINES, unit="nats")
    assert {"L5H0", "L5H2", "L3H1", "L6H3", "logits"} <= {text.get_text() for text in ax.texts}
    assert [tick.get_text() for tick in ax.get_yticklabels()][:3] == ["layer 3", "layer 5", "layer 6"]
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["mover <1>", "inhibition", "negative", "raises it", "lowers it"]
    assert len(ax.patches) == 4
    alt = style.alt_text(ax.figure)
    assert "Circuit of 4 heads: mover <1> L5H0, L5H2; inhibition L3H1; negative L6H3. 4 lines." in alt
    html = style.figure_html(ax.figure)
    assert html.count("<tr>") == 5
    assert "L5H0 +0.20" in html
    assert "logits -0.70" in html
    assert "mover <1>" not in html
    plt.close("all")


def test_what_a_role_does_together_is_one_line_and_each_kind_of_line_says_its_unit():
    lines = [*LINES, ("mover <1>", (6, 3), 0.5)]
    ax = circuit_graph(ROLES, lines, unit="nats", between="attention")
    assert len(ax.patches) == 5
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend[-2:] == ["to the logits: nats", "between heads: attention"]
    html = style.figure_html(ax.figure)
    assert html.count("L6H3 +0.50 (attention), all of role") == 2
    assert "logits -0.70 (nats)" in html
    plt.close("all")


def test_no_line_runs_through_another_head():
    roles = {"mover": [(1, 0), (1, 1), (1, 2)], "below": [(2, 0)], "late": [(3, 0), (3, 1)]}
    lines = [(head, "logits", 1.0) for heads in roles.values() for head in heads]
    ax = circuit_graph(roles, [*lines, ("mover", (2, 0), 0.5)])
    ax.figure.canvas.draw()
    places = circuit_layout(roles)
    starts = [places[head] for head, *_ in lines]
    for patch, start in zip(ax.patches, starts, strict=False):
        drawn = patch.get_path().interpolated(20).vertices  # in points of the screen
        for place in set(places.values()) - {start}:
            away = np.linalg.norm(drawn - ax.transData.transform(place), axis=1)
            assert away.min() > 8 * ax.figure.dpi / 72, (start, place)
    plt.close("all")


def test_what_a_role_does_together_begins_at_its_bracket():
    ax = circuit_graph(ROLES, [("mover <1>", (6, 3), 0.5)])
    bracket = next(line for line in ax.lines if len(line.get_xdata()) == 4)
    (arrow,) = ax.patches
    assert arrow._posA_posB[0][1] == max(bracket.get_ydata())
    assert arrow.shrinkA == 0
    plt.close("all")


def test_a_circuit_that_cannot_be_drawn_says_why():
    with pytest.raises(ValueError, match="no head at all"):
        circuit_graph({"mover": []})
    with pytest.raises(ValueError, match="wanted a circuit of heads with one role each; came two roles for L1H2"):
        circuit_graph({"mover": [(1, 2)], "negative": [(1, 2)]})
    with pytest.raises(
        ValueError, match=r"wanted lines between heads of the circuit, from a role, or to 'logits'; came \(9, 9\)"
    ):
        circuit_graph({"mover": [(1, 2)]}, [((1, 2), (9, 9), 1.0)])
    plt.close("all")


def test_switching_a_head_off_asks_once_and_says_what_is_left():
    compute = Compute()
    explorer = CircuitExplorer(ROLES, compute)
    assert plain(explorer.message.value).startswith(
        "Off: none. The whole model gives a mean logit difference of +4.5, 100%"
    )
    explorer.switches[5, 0].value = False
    said = plain(explorer.message.value)
    assert said.startswith("Off: L5H0. The whole model gives a mean logit difference of +3.5, 78%")
    assert "right on 2 of 2 prompts" in said
    before = len(compute.asked)
    explorer.reset.click()
    explorer.switches[5, 0].value = False
    assert len(compute.asked) == before
    assert explorer.off == {(5, 0)}


def test_the_circuit_alone_is_asked_for_without_the_rest():
    compute = Compute()
    explorer = CircuitExplorer(ROLES, compute)
    explorer.outside.value = True
    assert compute.asked[-1] == (frozenset(), True)
    assert "The circuit alone gives a mean logit difference of +2.5, 56% of the intact model’s" in plain(
        explorer.message.value
    )


def test_heads_that_are_off_are_hollow_in_the_drawing():
    explorer = CircuitExplorer(ROLES, Compute())
    assert 'fill="none"' not in explorer.graph.value
    explorer.switches[6, 3].value = False
    assert explorer.graph.value.count('fill="none"') == 1
    assert "heads that are off are hollow: 1 of 4" in explorer.graph.value
    assert explorer.graph.value.count("<circle") == 4


def test_what_is_said_stands_above_the_switches():
    _, controls, message, _, switches = CircuitExplorer(ROLES, Compute()).box.children
    assert [each.description for each in controls.children] == ["Keep"]
    assert "Off: none" in message.value
    assert len(switches.children) == 3 + 1  # a row for each role, and "all on"


def test_the_drawing_shrinks_with_its_page_and_is_outlined_in_the_colour_of_the_text():
    explorer = CircuitExplorer(ROLES, Compute())
    across = [float(each) for each in re.findall(r'cx="([\d.]+)%"', explorer.graph.value)]
    assert len(across) == 4
    assert all(14 < each < 100 for each in across)
    assert "stroke:var(--jp-ui-font-color1" in explorer.box.children[0].value
    assert "stroke=" not in explorer.graph.value


def test_a_failing_answer_gets_a_sentence_and_the_drawing_stays():
    explorer = CircuitExplorer(ROLES, Compute())
    for head in ((5, 0), (5, 2), (3, 1)):
        explorer.switches[head].value = False
    assert plain(explorer.message.value) == "nothing &lt;left&gt;"
    assert "mk-error" in explorer.message.value
    assert "<circle" in explorer.graph.value
    explorer.reset.click()
    assert 'class="mk-error"' not in explorer.message.value
    assert explorer.off == frozenset()


def test_every_switch_is_labelled_and_grouped_by_role():
    explorer = CircuitExplorer(ROLES, Compute())
    assert [switch.description for switch in explorer.switches.values()] == ["L5H0", "L5H2", "L3H1", "L6H3"]
    assert "none" not in explorer.roles
    assert "<1>" not in explorer.box.children[-1].children[0].children[0].value


def test_the_twin_holds_each_role_off_by_turns(monkeypatch):
    explorer = CircuitExplorer(ROLES, Compute())
    table = circuit_rows(explorer)
    assert table[0] == ["", "the whole model", "the circuit alone"]
    assert table[1:] == [
        ["nothing off", "+4.5", "+2.5"],
        ["mover <1> off", "+2.5", "+0.50"],
        ["inhibition off", "+3.5", "+1.5"],
        ["negative off", "+5.5", "+3.5"],
    ]
    shown = []
    monkeypatch.setattr(style, "display", lambda thing, raw=False: shown.append(thing))
    explorer._ipython_display_()
    live, still = shown
    assert "application/vnd.jupyter.widget-view+json" in live
    assert "<details" in still.html
    assert "<table" in still.html
    assert "http" not in still.html
    assert "<1>" not in still.html


def test_an_explorer_of_no_head_or_a_head_twice_says_so():
    with pytest.raises(ValueError, match="no head at all"):
        CircuitExplorer({"mover": []}, Compute())
    with pytest.raises(ValueError, match="two roles for L1H2"):
        CircuitExplorer({"mover": [(1, 2)], "other": [(1, 2)]}, Compute())
