"""Chapter 06: switch heads of a circuit off and on, and see what is left of the answer.

The explorer gets a function from the heads that are off to the answer, so that it needs no model itself. What was
asked once is kept; everything is redrawn at once. What is said stands above the switches, and the picture beside them
where there is room for both, so that whoever switches a head sees what comes of it.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape

import ipywidgets as widgets
from jaxtyping import Float
from torch import Tensor

from mechkit.show.captions import Table, Twin, percent, signed, table_html, table_text
from mechkit.show.circuits import Head, circuit_layout, role_looks
from mechkit.show.explorers import panel

CSS = """
.mk-circuit{flex-flow:row wrap!important}
.mk-circuit>*{flex:1 0 100%}
.mk-circuit>:nth-last-child(2){flex:1 1 300px}
.mk-circuit>:last-child{flex:0 1 auto}
.mk-explorer svg{width:100%;max-width:620px}
.mk-explorer svg text{font:11px var(--jp-ui-font-family,sans-serif);fill:var(--jp-ui-font-color1,#222)}
.mk-explorer svg circle{stroke:var(--jp-ui-font-color1,#222);stroke-width:1.5}
.mk-explorer .mk-role{display:inline-block;width:.7em;height:.7em;border:1px solid var(--jp-ui-font-color1,#222)}
"""
WHOLE, ALONE = "the whole model", "the circuit alone"
ROW, LEFT = 40, 14  # pixels; percent of the width, kept for the layers' names


class CircuitExplorer:
    """A switch for each head of a circuit, over what the answer becomes.

    Args:
        roles: From a role's name to its heads, (layer, head).
        compute: From the heads that are off, and whether every head outside the circuit is off too, to one number a
            prompt.
        unit: What the numbers are.
    Raises: ValueError if there is no head, or a head has two roles.
    Chapter: 06.
    """

    def __init__(
        self,
        roles: Mapping[str, Sequence[Head]],
        compute: Callable[[frozenset[Head], bool], Float[Tensor, " prompt"]],
        *,
        unit: str = "logit difference",
    ) -> None:
        self.roles = {role: [tuple(map(int, head)) for head in heads] for role, heads in roles.items() if heads}
        self.places, self.unit = circuit_layout(self.roles), unit
        self._compute, self._known, self._still = compute, {}, False
        tip = "Whether the heads outside the circuit work too"
        self.outside = panel.choice("Keep", [(WHOLE, False), (ALONE, True)], tip)
        self.switches = {
            (layer, head): panel.switch(f"L{layer}H{head}", f"L{layer}H{head} at work", width="6em")
            for heads in self.roles.values()
            for layer, head in heads
        }
        self.reset = panel.button("all on", "Switch every head on", self._all_on)
        rows = [
            widgets.HBox(self._row(role, heads), layout=widgets.Layout(**panel.WRAPPED))
            for role, heads in self.roles.items()
        ]
        below = [widgets.VBox([*rows, self.reset])]
        self.panel = panel.Panel("Circuit explorer", [[self.outside]], css=CSS, below=below)
        self.box, self.message, self.graph = self.panel.box, self.panel.message, self.panel.view
        self.box.add_class("mk-circuit")
        panel.watch(self._draw, self.outside, *self.switches.values())
        self._draw()

    def answer(self, off: frozenset[Head], alone: bool) -> Float[Tensor, " prompt"]:
        """What is left of the answer, computed once."""
        if (off, alone) not in self._known:
            self._known[off, alone] = self._compute(off, alone)
        return self._known[off, alone]

    @property
    def off(self) -> frozenset[Head]:
        """The heads that are switched off."""
        return frozenset(head for head, switch in self.switches.items() if not switch.value)

    def _row(self, role: str, heads: Sequence[Head]) -> list[widgets.Widget]:
        label = widgets.HTML(
            f'<span class="mk-role" style="background:{role_looks(self.roles)[role][0]}"></span> {escape(role)}',
            layout=widgets.Layout(width="12em"),
        )
        return [label, *(self.switches[head] for head in heads)]

    def _all_on(self) -> None:
        self._still = True  # one answer at the end, not one a switch
        for switch in self.switches.values():
            switch.value = True
        self._still = False
        self._draw()

    def _draw(self) -> None:
        if self._still:
            return None
        try:
            now, intact = self.answer(self.off, self.outside.value), self.answer(frozenset(), False)
        except Exception as error:
            return self.panel.trouble(error)
        off = ", ".join(f"L{layer}H{head}" for layer, head in sorted(self.off)) or "none"
        kept = ALONE if self.outside.value else WHOLE
        said = (
            f"Off: {off}. {kept.capitalize()} gives a mean {self.unit} of {signed(now.mean())}, "
            f"{percent(float(now.mean() / intact.mean()))} of the intact model’s; it is right on "
            f"{int((now > 0).sum())} of {len(now)} prompts."
        )
        self.panel.say(said)
        most = max(float(intact.mean().abs()), float(now.mean().abs())) or 1.0
        bars = "".join(_bar(name, float(value.mean()), most) for name, value in (("intact", intact), ("now", now)))
        self.graph.value = f"<table><tbody>{bars}</tbody></table>{self._svg()}"
        return None

    def _svg(self) -> str:
        rows = 1 + max(row for _, row in self.places.values())
        looks, drawn = role_looks(self.roles), []
        for row, layer in enumerate(sorted({layer for layer, _ in self.places})):
            drawn.append(f'<text x="0" y="{ROW * row + 18}">layer {layer}</text>')
        for role, heads in self.roles.items():
            for head in heads:
                x, row = self.places[head]
                across = LEFT + (x + 0.5) * (100 - LEFT)
                drawn.append(_node(across, ROW * row + 14, head, looks[role][0], head in self.off))
        label = f"The circuit; heads that are off are hollow: {len(self.off)} of {len(self.switches)}."
        return f'<svg role="img" aria-label="{label}" height="{ROW * rows}">{"".join(drawn)}</svg>'

    def _ipython_display_(self) -> None:
        table = circuit_rows(self)
        self.panel.show(Twin(table_html(table), table_text(table)))


def circuit_rows(explorer: CircuitExplorer) -> Table:
    """What is left of the answer with nothing off, and with each role off by turns."""
    cases = {"nothing off": frozenset()} | {f"{role} off": frozenset(heads) for role, heads in explorer.roles.items()}
    rows = [
        [name, *(signed(explorer.answer(off, alone).mean()) for alone in (False, True))] for name, off in cases.items()
    ]
    return [["", WHOLE, ALONE], *rows]


def _bar(name: str, value: float, most: float) -> str:
    shown = panel.bar(abs(value) / most, panel.ABOVE if value >= 0 else panel.BELOW)
    return f'<tr><th scope="row">{name}</th><td>{shown}{signed(value)}</td></tr>'


def _node(x: float, y: float, head: Head, color: str, off: bool) -> str:
    """A head's circle, and its name below it; x in percent, so that the picture shrinks and its letters do not."""
    look = 'fill="none" stroke-dasharray="3 2"' if off else f'fill="{color}"'
    struck = ' text-decoration="line-through"' if off else ""
    circle = f'<circle cx="{x:.1f}%" cy="{y}" r="8" {look}/>'
    return f'{circle}<text x="{x:.1f}%" y="{y + 20}" text-anchor="middle"{struck}>L{head[0]}H{head[1]}</text>'
