"""What all explorers share: controls on top, under them what they show in words, and below that the view.

Labels stand in one column, every control has a tooltip, and what has the focus is outlined in every theme. Room for
the words and the view is kept, so that nothing jumps. Bare arrow keys belong to JupyterLab everywhere but in a slider
and a text box; so a choice is a row of buttons or a slider, never a menu or radio buttons.
"""

from collections.abc import Callable, Sequence
from html import escape

import ipywidgets as widgets

from mechkit.show.captions import Twin
from mechkit.show.style import show_live

# As dark as it takes to stand out from a bar's track in a light theme, and as light in a dark one.
SHARE, ABOVE, BELOW, OTHER, CONTROL = "#9575cd", "#3d8fd1", "#e0605a", "#c8752c", "#8a8a8a"
CSS = """
.mk-explorer{container-type:inline-size}
.mk-explorer .mk-words{line-height:1.45;min-height:calc(var(--mk-lines)*1.45em)}
.mk-explorer .widget-label{text-align:left}
.mk-explorer .mk-error{color:var(--jp-error-color0,#b2182b);font-weight:bold}
.mk-explorer table{border-collapse:collapse;font:13px/20px var(--jp-ui-font-family,sans-serif);
  color:var(--jp-ui-font-color1,inherit)}
.mk-explorer caption{text-align:left;padding-bottom:4px}
.mk-explorer th,.mk-explorer td{padding:1px 14px 1px 0;text-align:left!important;font-weight:normal;white-space:nowrap}
.mk-explorer thead th{font-weight:bold}
.mk-explorer tbody tr{background:none!important}
.mk-explorer ol{margin:2px 0 0;padding:0;list-style:none}
.mk-explorer li{display:inline-block;margin-right:1.2em}
.mk-explorer .mk-bar{display:inline-block;position:relative;width:14em;height:12px;margin-right:6px;
  vertical-align:-1px;background:var(--jp-layout-color2,#eee)}
.mk-explorer .mk-bar i{position:absolute;left:0;height:100%}
.mk-explorer .mk-bar b{position:absolute;top:-3px;width:2px;height:18px;background:var(--jp-ui-font-color1,black)}
.mk-explorer .mk-bar s{position:absolute;top:5px;height:2px;background:var(--jp-ui-font-color1,black)}
.mk-explorer .widget-toggle-buttons button.mod-active{text-decoration:underline;text-underline-offset:3px}
.mk-explorer :is(button,input,.noUi-handle,.widget-readout,[tabindex]):focus-visible{
  outline:3px solid var(--jp-brand-color1,#1976d2)!important;outline-offset:1px!important}
@container (max-width:640px){.mk-explorer .mk-words{min-height:calc(var(--mk-lines)*2.5em)}
  .mk-explorer .mk-bar{width:9em}}
@container (max-width:420px){.mk-explorer .mk-bar{width:5em}
  .mk-explorer th,.mk-explorer td{padding-right:8px}}
"""
WIDE, LABEL = "min(100%, 36em)", {"description_width": "7.5em"}
WRAPPED = {"flex_flow": "row wrap"}


class Panel:
    """An explorer's box: its controls in rows, a place for words, and a view.

    Args:
        name: What it is called: "Lens explorer".
        rows: Controls that stand side by side, row by row.
        lines: How many lines of words to keep room for in a notebook's width.
        height: Of the view, kept also while it has less to show; "" where it grows with what it holds.
        css: The look of this explorer's own view.
        below: What else stands below the view.
    """

    def __init__(
        self,
        name: str,
        rows: Sequence[Sequence[widgets.Widget]],
        *,
        lines: int = 2,
        height: str = "",
        css: str = "",
        below: Sequence[widgets.Widget] = (),
    ) -> None:
        self.name, self._lines = name, lines
        self.message = widgets.HTML()
        self.view = widgets.HTML(layout=widgets.Layout(overflow="auto", min_height=height or None), tabbable=True)
        look = widgets.HTML(f"<style>{CSS}{css}</style>", layout=widgets.Layout(display="none"))
        boxes = [widgets.HBox(row, layout=widgets.Layout(**WRAPPED)) for row in rows]
        self.box = widgets.VBox([look, *boxes, self.message, self.view, *below]).add_class("mk-explorer")

    def say(self, sentence: str, *, more: str = "", kind: str = "") -> None:
        """Put a sentence under the controls, read aloud to who cannot see it; `more` is HTML that follows it."""
        said = f'<span class="{kind}">{escape(sentence)}</span>' if kind else escape(sentence)
        room = f'class="mk-words" style="--mk-lines:{self._lines}"'
        self.message.value = f'<div role="status" aria-live="polite" {room}>{said}{more}</div>'

    def trouble(self, error: Exception) -> None:
        """Say what went wrong in a function of the notebook's: a traceback would vanish unseen in the page's log."""
        name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        self.say(f"{name}{error}", kind="mk-error")

    def show(self, twin: Twin) -> None:
        """Display the box and, folded under it, what is left when nothing moves."""
        show_live(self.box, self.name, twin)


def text(name: str, value: str, tip: str, *, width: str = WIDE, wait: bool = True) -> widgets.Text:
    """A line to type in, read when Enter is pressed; at once unless `wait`."""
    return widgets.Text(
        value,
        description=name,
        tooltip=tip,
        continuous_update=not wait,
        style=LABEL,
        layout=widgets.Layout(width=width),
    )


def slider(name: str, options: Sequence[object], tip: str, *, value: object = None) -> widgets.SelectionSlider:
    """A choice in an order; arrow keys move it."""
    more = {} if value is None else {"value": value}
    layout = widgets.Layout(width=WIDE)
    tip = f"{tip}; arrow keys move it"
    return widgets.SelectionSlider(options=options, description=name, tooltip=tip, style=LABEL, layout=layout, **more)


def choice(name: str, options: Sequence[object], tip: str) -> widgets.ToggleButtons:
    """A choice of a few, a button each."""
    tips, style = [tip] * len(options), LABEL | {"button_width": "auto"}
    return widgets.ToggleButtons(options=options, description=name, tooltip=tip, tooltips=tips, style=style)


def offer(buttons: widgets.ToggleButtons, options: Sequence[object]) -> None:
    """Give a choice other options."""
    buttons.tooltips = [buttons.tooltip] * len(options)
    buttons.options = options


def switch(name: str, tip: str, *, width: str = "") -> widgets.Checkbox:
    """Something that is on at first."""
    layout = widgets.Layout(width=width or None)
    return widgets.Checkbox(True, description=name, indent=False, tooltip=tip, layout=layout)


def button(name: str, tip: str, action: Callable[[], object]) -> widgets.Button:
    """Something to do now."""
    made = widgets.Button(description=name, tooltip=tip, layout=widgets.Layout(width="7em"))
    made.on_click(lambda _: action())
    return made


def watch(action: Callable[[], object], *controls: widgets.Widget) -> None:
    """Do this whenever one of these controls gets another value."""
    for control in controls:
        control.observe(lambda _: action(), "value")


def bar(share: float, color: str, *, mark: float | None = None, scatter: tuple[float, float] | None = None) -> str:
    """A bar as HTML: how far it goes, from 0 to 1, where a mark stands across it, and the scatter of its end."""
    fill = f'<i style="width:{100 * share:.1f}%;background:{color}"></i>'
    line = f'<b style="left:{100 * mark:.1f}%"></b>' if mark is not None else ""
    low, high = scatter or (0.0, 0.0)
    spread = f'<s style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></s>' if scatter else ""
    return f'<span class="mk-bar">{fill}{spread}{line}</span>'
