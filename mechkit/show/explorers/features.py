"""Chapter 08: browse a dictionary's features by number, or by a token on which they are on.

The explorer gets a function from a number to a feature's card, so that it needs neither the model nor the
dictionary. Each card is made once; everything is redrawn at once.
"""

from collections.abc import Callable, Sequence
from html import escape

import ipywidgets as widgets

from mechkit.show.captions import Twin, number, visible
from mechkit.show.features import FeatureCard, feature_dashboard
from mechkit.show.style import show_live

FOUND = 8  # features that a search lists
CSS = """<style>
.mk-browse [role=status]{line-height:1.45}
.mk-browse .mk-error{color:var(--jp-error-color0,#b2182b);font-weight:bold}
</style>"""


class FeatureExplorer:
    """A feature's number, or a token to search for, over the feature's dashboard.

    Args:
        card: From a number to that feature's card. What it raises is shown as a sentence, and the last card stays.
        count: How many features there are.
        find: From a token, as it was typed, to the features that are on there: (number, activation), strongest
            first. What it raises is shown as a sentence.
        start: The feature that is shown first.
        token: What is searched for first.
    Raises: ValueError if there is no feature, or `start` is none.
    Chapter: 08.
    """

    def __init__(
        self,
        card: Callable[[int], FeatureCard],
        count: int,
        find: Callable[[str], Sequence[tuple[int, float]]],
        *,
        start: int = 0,
        token: str = "",
    ) -> None:
        if not 0 <= start < count:
            raise ValueError(f"wanted a first feature from 0 to {count - 1}; came {start}: choose one that there is")
        self._card, self._find, self._known = card, find, {}
        self._shown: FeatureCard | None = None
        self._make_controls(count, start, token)
        self.number.observe(lambda _: self._draw(), "value")
        self.token.observe(lambda _: self.search(), "value")
        self.found.observe(lambda _: self._go(), "value")
        self.before.on_click(lambda _: self._step(-1))
        self.after.on_click(lambda _: self._step(1))
        self._draw()
        if token:
            self.search()

    def _make_controls(self, count: int, start: int, token: str) -> None:
        style = {"description_width": "5.5em"}
        self.number = widgets.BoundedIntText(
            start,
            min=0,
            max=count - 1,
            description="Feature",
            style=style,
            layout=widgets.Layout(width="13em"),
            tooltip=f"A number from 0 to {count - 1}",
        )
        self.before = widgets.Button(description="before", tooltip="The feature before", layout=_width("6em"))
        self.after = widgets.Button(description="after", tooltip="The feature after", layout=_width("6em"))
        self.token = widgets.Text(
            token,
            description="Token",
            continuous_update=False,
            style=style,
            layout=_width("20em"),
            tooltip="Type a word and press Enter: which features are on there?",
        )
        self.found = widgets.ToggleButtons(options=[], description="On there", style=style | {"button_width": "auto"})
        self.found.layout.display = "none"
        self.message = widgets.HTML()
        self.dashboard = widgets.HTML(layout=widgets.Layout(overflow="auto", min_height="14em"), tabbable=True)
        wrap = widgets.Layout(flex_flow="row wrap")
        rows = [widgets.HBox([self.number, self.before, self.after, self.token], layout=wrap)]
        self.box = widgets.VBox([*rows, self.found, self.message, self.dashboard]).add_class("mk-browse")

    def search(self) -> None:
        """List the features that are on at the typed token, or say in the message that there is none."""
        wanted = self.token.value
        try:
            hits = list(self._find(wanted))[:FOUND] if wanted else []
        except Exception as error:  # a function of the notebook's, which may fail in any way
            return self._trouble(error)
        options = [(f"{feature} ({number(value)})", feature) for feature, value in hits]
        self.found.options, self.found.value = options, None
        self.found.layout.display = "" if options else "none"
        if wanted and not hits:
            return self._say(f"No feature is on at “{visible(wanted)}” in these passages.")
        most = f"; strongest: feature {hits[0][0]}" if hits else ""
        return self._say(f"{len(hits)} features are on most at “{visible(wanted)}”{most}." if wanted else "")

    def _go(self) -> None:
        if self.found.value is not None:
            self.number.value = self.found.value

    def _step(self, by: int) -> None:
        self.number.value = (self.number.value + by) % (self.number.max + 1)

    def _draw(self) -> None:
        wanted = self.number.value
        try:
            if wanted not in self._known:
                self._known[wanted] = self._card(wanted)
        except Exception as error:  # a traceback would vanish unseen in the page's log
            return self._trouble(error)
        self._shown = self._known[wanted]
        self.dashboard.value = feature_dashboard(self._shown).html
        never = "" if self._shown.examples else " It is on nowhere in these passages."
        return self._say(f"Feature {wanted} of {self.number.max + 1}.{never}")

    def _trouble(self, error: Exception) -> None:
        name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        self.message.value = _status(f'<span class="mk-error">{escape(f"{name}{error}")}</span>')

    def _say(self, sentence: str) -> None:
        self.message.value = _status(escape(sentence))

    def _ipython_display_(self) -> None:
        nothing = Twin("<p>No feature was read.</p>", "No feature was read.")
        show_live(self.box, "Feature explorer", feature_dashboard(self._shown) if self._shown else nothing)


def _width(width: str) -> widgets.Layout:
    return widgets.Layout(width=width)


def _status(html: str) -> str:
    return f'{CSS}<div role="status" aria-live="polite">{html}</div>'
