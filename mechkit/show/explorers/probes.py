"""Chapter 03: choose a property and a layer, and see what a probe reads there beside its controls.

Everything is measured beforehand: moving a control only redraws.
"""

from collections.abc import Mapping
from html import escape

import ipywidgets as widgets
from jaxtyping import Float
from torch import Tensor

from mechkit.data.probe_results import ProbeSweep
from mechkit.show.captions import Table, Twin, percent, signed, table_html, table_text
from mechkit.show.style import show_live

CSS = """<style>
.mk-probes table{border-collapse:collapse;width:clamp(30em,100%,44em);table-layout:fixed;
  font:13px/22px var(--jp-ui-font-family,sans-serif);color:var(--jp-ui-font-color1,inherit)}
.mk-probes [role=status]{line-height:1.45}
.mk-probes tbody tr{background:none!important}
.mk-probes th{padding:1px 8px 1px 0;font-weight:normal;text-align:right!important;width:11em;white-space:nowrap}
.mk-probes td{padding:1px 8px 1px 0;white-space:nowrap;text-align:left!important}
.mk-probes .mk-bar{display:inline-block;position:relative;width:calc(100% - 7.5em);height:13px;
  margin-right:6px;vertical-align:-2px;background:var(--jp-layout-color2,#eee)}
.mk-probes .mk-bar i{position:absolute;left:0;height:100%}
.mk-probes .mk-bar s{position:absolute;top:5px;height:3px;background:var(--jp-ui-font-color1,black)}
.mk-probes .mk-bar b{position:absolute;top:-4px;width:2px;height:21px;background:var(--jp-ui-font-color1,black)}
</style>"""
# colours that differ in lightness too, and say which rows are controls
COLORS = {"control": "#8c8c8c", "outside": "#d98c3f", "outside, order": "#b3611a"}
COLOR = "#2f86c9"


def probe_table(sweep: ProbeSweep) -> Twin:
    """One property's sweep as a still table: a row a layer, the mean over seeds of each measure."""
    table = _rows(sweep)
    return Twin(table_html(table), table_text(table))


class ProbeExplorer:
    """A property, a layer, and what probes make of it: in and out of distribution, beside the control task.

    Args:
        sweeps: By the property's name, as `load_probe_results` gives them or as you measured them.
    Raises: ValueError if there is none.
    """

    def __init__(self, sweeps: Mapping[str, ProbeSweep]) -> None:
        if not sweeps:
            raise ValueError("wanted at least one sweep to explore; came none")
        self.sweeps = dict(sweeps)
        style = {"description_width": "5.5em"}
        self.property = widgets.Dropdown(
            options=list(self.sweeps), description="Property", style=style, tooltip="What the probes look for"
        )
        self.layer = widgets.SelectionSlider(
            options=[("", 0)],
            description="Layer",
            style=style,
            tooltip="Where they look; arrow keys move it",
            layout=widgets.Layout(width="min(100%, 36em)"),
        )
        self.message = widgets.HTML(layout=widgets.Layout(min_height="3em"))
        self.table = widgets.HTML(layout=widgets.Layout(overflow="auto"), tabbable=True)
        self.box = widgets.VBox([self.property, self.layer, self.message, self.table]).add_class("mk-probes")
        self._choose()
        self.property.observe(lambda _: self._choose(), "value")
        self.layer.observe(lambda _: self._draw(), "value")

    @property
    def sweep(self) -> ProbeSweep:
        """The sweep of the chosen property."""
        return self.sweeps[self.property.value]

    def _choose(self) -> None:
        """Offer the property's layers, and stay at the same depth."""
        places, before = range(len(self.sweep.layers)), self.layer.value
        fresh = len(self.layer.options) == 1
        self.layer.options = [(str(self.sweep.layers[place]), place) for place in places]
        self.layer.value = len(places) // 2 if fresh else min(before, len(places) - 1)
        self._draw()

    def _draw(self) -> None:
        place, sweep = min(self.layer.value, len(self.sweep.layers) - 1), self.sweep
        gained = sweep.selectivity[:, place].mean()
        said = (
            f"{self.property.value} at layer {sweep.layers[place]}. "
            f"New words {percent(sweep.measures['new words'][:, place].mean())}, "
            f"outside {percent(sweep.measures['outside'][:, place].mean())}; selectivity {signed(gained)} "
            f"(known words less control); chance {percent(sweep.chance)}."
        )
        self.message.value = f'<div role="status" aria-live="polite">{escape(said)}</div>'
        self.table.value = CSS + _bars(sweep, place)

    def _ipython_display_(self) -> None:
        tables = {name: probe_table(sweep) for name, sweep in self.sweeps.items()}
        html = "".join(f"<p>{escape(name)}</p>{twin.html}" for name, twin in tables.items())
        show_live(self.box, "Probe explorer", Twin(html, "\n".join(map(_sentence, self.sweeps, self.sweeps.values()))))


def _columns(sweep: ProbeSweep) -> dict[str, Float[Tensor, "seed layer"]]:
    return {**sweep.measures, "selectivity": sweep.selectivity}


def _rows(sweep: ProbeSweep) -> Table:
    columns = _columns(sweep)
    lines = zip(sweep.layers, *(table.mean(0).tolist() for table in columns.values()), strict=True)
    return [["layer", *columns], *([str(layer), *(f"{value:.2f}" for value in values)] for layer, *values in lines)]


def _sentence(name: str, sweep: ProbeSweep) -> str:
    means = {measure: table.mean(0) for measure, table in _columns(sweep).items()}
    best = int(means["new words"].argmax())
    said = ", ".join(f"{measure} {mean[best]:.2f}" for measure, mean in means.items())
    return f"{name}: new words read best at layer {sweep.layers[best]}; there {said}."


def _bars(sweep: ProbeSweep, place: int) -> str:
    """One row a measure: its mean as a bar, its scatter over seeds as a line, chance as a mark."""
    body = ""
    for name, table in sweep.measures.items():
        values = table[:, place]
        mean = float(values.mean())
        spread = float(values.std()) if len(values) > 1 else 0.0
        chance = 0.5 if name == "outside, order" else sweep.chance
        body += f'<tr><th scope="row">{escape(name)}</th>{_bar(name, mean, spread, chance)}</tr>'
    return f"<table><tbody>{body}</tbody></table>"


def _bar(name: str, mean: float, spread: float, chance: float) -> str:
    low, high = max(0.0, mean - spread), min(1.0, mean + spread)
    fill = f'<i style="width:{100 * mean:.1f}%;background:{COLORS.get(name, COLOR)}"></i>'
    scatter = f'<s style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></s>'
    mark = f'<b style="left:{100 * chance:.1f}%"></b>'
    return f'<td><span class="mk-bar">{fill}{scatter}{mark}</span>{mean:.2f} ± {spread:.2f}</td>'
