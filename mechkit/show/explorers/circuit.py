"""Chapter 06: switch heads of a circuit off and on, and see what is left of the answer.

The explorer gets a function from the heads that are off to the answer, so that it needs no model itself. What was
asked once is kept; everything is redrawn at once.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape

import ipywidgets as widgets
from jaxtyping import Float
from torch import Tensor

from mechkit.show.captions import Table, Twin, percent, signed, table_html, table_text
from mechkit.show.circuits import Head, circuit_layout, role_looks
from mechkit.show.style import show_live

CSS = """<style>
.mk-circuit [role=status]{line-height:1.45}
.mk-circuit table{border-collapse:collapse;font:13px/22px var(--jp-ui-font-family,sans-serif);
  color:var(--jp-ui-font-color1,inherit)}
.mk-circuit th,.mk-circuit td{padding:1px 10px 1px 0;font-weight:normal;text-align:left!important;white-space:nowrap}
.mk-circuit .mk-bar{display:inline-block;position:relative;width:min(18em,18vw);height:13px;
  vertical-align:-2px;background:var(--jp-layout-color2,#eee)}
.mk-circuit .mk-bar i{position:absolute;left:0;height:100%;background:#2f86c9}
.mk-circuit .mk-bar i.mk-minus{background:#b2182b}
.mk-circuit svg text{font:11px var(--jp-ui-font-family,sans-serif);fill:var(--jp-ui-font-color1,#222)}
.mk-circuit .mk-error{color:var(--jp-error-color0,#b2182b);font-weight:bold}
</style>"""
WHOLE, ALONE = "the whole model", "the circuit alone"
ROW, WIDTH, LEFT = 34, 620, 70  # pixels


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
        self.outside = widgets.ToggleButtons(
            options=[(WHOLE, False), (ALONE, True)],
            description="Keep",
            tooltips=["Every other head works too", "Every head outside the circuit is knocked out"],
        )
        self.switches = {head: self._switch(head) for heads in self.roles.values() for head in heads}
        self.reset = widgets.Button(description="all on", tooltip="Switch every head on")
        self.reset.on_click(lambda _: self._all_on())
        self.message = widgets.HTML(layout=widgets.Layout(min_height="6em"))
        self.graph = widgets.HTML(layout=widgets.Layout(overflow="auto"), tabbable=True)
        rows = [self._row(role, heads) for role, heads in self.roles.items()]
        self.box = widgets.VBox([self.outside, *rows, self.reset, self.message, self.graph]).add_class("mk-circuit")
        self.outside.observe(lambda _: self._draw(), "value")
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

    def _switch(self, head: Head) -> widgets.Checkbox:
        name = f"L{head[0]}H{head[1]}"
        switch = widgets.Checkbox(
            value=True, description=name, indent=False, tooltip=f"{name} at work", layout=widgets.Layout(width="6em")
        )
        switch.observe(lambda _: self._draw(), "value")
        return switch

    def _row(self, role: str, heads: Sequence[Head]) -> widgets.HBox:
        label = widgets.HTML(
            f'<span style="color:{role_looks(self.roles)[role][0]}">■</span> {escape(role)}',
            layout=widgets.Layout(width="13em"),
        )
        return widgets.HBox(
            [label, *(self.switches[head] for head in heads)], layout=widgets.Layout(flex_flow="row wrap")
        )

    def _all_on(self) -> None:
        self._still = True  # one answer at the end, not one a switch
        for switch in self.switches.values():
            switch.value = True
        self._still = False
        self._draw()

    def _draw(self) -> None:
        if self._still:
            return
        try:
            now, intact = self.answer(self.off, self.outside.value), self.answer(frozenset(), False)
        except Exception as error:  # a function of the notebook's, which may fail in any way
            said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            self.message.value = f'{CSS}<div role="status" aria-live="polite" class="mk-error">{escape(said)}</div>'
            return
        off = ", ".join(f"L{layer}H{head}" for layer, head in sorted(self.off)) or "none"
        kept = ALONE if self.outside.value else WHOLE
        said = (
            f"Off: {off}. {kept.capitalize()} gives a mean {self.unit} of {signed(now.mean())}, "
            f"{percent(float(now.mean() / intact.mean()))} of the intact model’s; it is right on "
            f"{int((now > 0).sum())} of {len(now)} prompts."
        )
        most = max(float(intact.mean().abs()), float(now.mean().abs())) or 1.0
        bars = "".join(_bar(name, float(value.mean()), most) for name, value in (("intact", intact), ("now", now)))
        self.message.value = (
            f'{CSS}<div role="status" aria-live="polite">{escape(said)}</div><table><tbody>{bars}</tbody></table>'
        )
        self.graph.value = self._svg()

    def _svg(self) -> str:
        rows = 1 + max(row for _, row in self.places.values())
        looks, drawn = role_looks(self.roles), []
        for row, layer in enumerate(sorted({layer for layer, _ in self.places})):
            drawn.append(f'<text x="0" y="{ROW * row + 22}">layer {layer}</text>')
        for role, heads in self.roles.items():
            for head in heads:
                x, row = self.places[head]
                drawn.append(
                    _node(
                        LEFT + (x + 0.5) * (WIDTH - LEFT - 60), ROW * row + 18, head, looks[role][0], head in self.off
                    )
                )
        label = f"The circuit; heads that are off are hollow: {len(self.off)} of {len(self.switches)}."
        return f'<svg role="img" aria-label="{label}" width="{WIDTH}" height="{ROW * rows + 8}">{"".join(drawn)}</svg>'

    def _ipython_display_(self) -> None:
        table = circuit_rows(self)
        show_live(self.box, "Circuit explorer", Twin(table_html(table), table_text(table)))


def circuit_rows(explorer: CircuitExplorer) -> Table:
    """What is left of the answer with nothing off, and with each role off by turns."""
    cases = {"nothing off": frozenset()} | {f"{role} off": frozenset(heads) for role, heads in explorer.roles.items()}
    rows = [
        [name, *(signed(explorer.answer(off, alone).mean()) for alone in (False, True))] for name, off in cases.items()
    ]
    return [["", WHOLE, ALONE], *rows]


def _bar(name: str, value: float, most: float) -> str:
    kind = ' class="mk-minus"' if value < 0 else ""
    bar = f'<span class="mk-bar"><i{kind} style="width:{100 * abs(value) / most:.1f}%"></i></span>'
    return f'<tr><th scope="row">{name}</th><td>{bar}</td><td>{signed(value)}</td></tr>'


def _node(x: float, y: float, head: Head, color: str, off: bool) -> str:
    look = f'fill="none" stroke="{color}" stroke-dasharray="3 2"' if off else f'fill="{color}" stroke="{color}"'
    name = f"L{head[0]}H{head[1]}"
    struck = ' text-decoration="line-through"' if off else ""
    circle = f'<circle cx="{x:.0f}" cy="{y}" r="8" stroke-width="2" {look}/>'
    return f'{circle}<text x="{x + 13:.0f}" y="{y + 4}"{struck}>{name}</text>'
