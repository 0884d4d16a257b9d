"""Chapter 03: choose a property and a layer, and see what a probe reads there beside its controls.

Everything is measured beforehand: moving a control only redraws.
"""

from collections.abc import Mapping
from html import escape
from typing import SupportsFloat

from jaxtyping import Float
from torch import Tensor

from mechkit.data.probe_results import ProbeSweep
from mechkit.show.captions import Table, Twin, percent, signed, table_html, table_text
from mechkit.show.explorers import panel

# which rows are controls; the others are shares like any other
COLORS = {"control": panel.CONTROL, "outside": panel.OTHER, "outside, order": panel.OTHER}


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
        self.property = panel.choice("Property", list(self.sweeps), "What the probes look for")
        self.layer = panel.slider("Layer", [("", 0)], "Where they look")
        self.panel = panel.Panel("Probe explorer", [[self.property], [self.layer]], height="140px")
        self.box, self.message, self.table = self.panel.box, self.panel.message, self.panel.view
        self._choose()
        panel.watch(self._choose, self.property)
        panel.watch(self._draw, self.layer)

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
        self.panel.say(said)
        self.table.value = _bars(sweep, place)

    def _ipython_display_(self) -> None:
        tables = {name: probe_table(sweep) for name, sweep in self.sweeps.items()}
        html = "".join(f"<p>{escape(name)}</p>{twin.html}" for name, twin in tables.items())
        self.panel.show(Twin(html, "\n".join(map(_sentence, self.sweeps, self.sweeps.values()))))


def _columns(sweep: ProbeSweep) -> dict[str, Float[Tensor, "seed layer"]]:
    return {**sweep.measures, "selectivity": sweep.selectivity}


def _rows(sweep: ProbeSweep) -> Table:
    columns = _columns(sweep)
    lines = zip(sweep.layers, *(table.mean(0).tolist() for table in columns.values()), strict=True)
    return [["layer", *columns], *([str(layer), *map(_said, columns, values)] for layer, *values in lines)]


def _said(measure: str, value: SupportsFloat) -> str:
    return signed(value) if measure == "selectivity" else percent(value)


def _sentence(name: str, sweep: ProbeSweep) -> str:
    means = {measure: table.mean(0) for measure, table in _columns(sweep).items()}
    best = int(means["new words"].argmax())
    said = ", ".join(f"{measure} {_said(measure, mean[best])}" for measure, mean in means.items())
    return f"{name}: new words read best at layer {sweep.layers[best]}; there {said}."


def _bars(sweep: ProbeSweep, place: int) -> str:
    """One row a measure: its mean as a bar, its scatter over seeds as a line, chance as a mark."""
    body = ""
    for name, table in sweep.measures.items():
        values = table[:, place]
        mean = float(values.mean())
        spread = float(values.std()) if len(values) > 1 else 0.0
        chance = 0.5 if name == "outside, order" else sweep.chance
        ends = max(0.0, mean - spread), min(1.0, mean + spread)
        shown = panel.bar(mean, COLORS.get(name, panel.SHARE), mark=chance, scatter=ends)
        said = f"{percent(mean)} ± {percent(spread)}"
        body += f'<tr><th scope="row">{escape(name)}</th><td>{shown}{said}</td></tr>'
    return f"<table><tbody>{body}</tbody></table>"
