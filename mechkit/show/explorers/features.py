"""Chapter 08: browse a dictionary's features by number, or by a token on which they are on.

The explorer gets a function from a number to a feature's card, so that it needs neither the model nor the
dictionary. Each card is made once; everything is redrawn at once.
"""

from collections.abc import Callable, Sequence

import ipywidgets as widgets

from mechkit.show.captions import Twin, number, visible
from mechkit.show.explorers import panel
from mechkit.show.features import FeatureCard, feature_dashboard

FOUND = 8  # features that a search lists


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
        panel.watch(self._draw, self.number)
        panel.watch(self.search, self.token)
        panel.watch(self._go, self.found)
        self._draw()
        if token:
            self.search()

    def _make_controls(self, count: int, start: int, token: str) -> None:
        self.number = widgets.BoundedIntText(
            start,
            min=0,
            max=count - 1,
            description="Feature",
            style=panel.LABEL,
            layout=widgets.Layout(width="14em"),
            tooltip=f"A number from 0 to {count - 1}; arrow keys move it",
        )
        self.before = panel.button("before", "The feature before", lambda: self._step(-1))
        self.after = panel.button("after", "The feature after", lambda: self._step(1))
        tip = "Type a word and press Enter: which features are on there?"
        self.token = panel.text("Token", token, tip, width="20em")
        self.found = panel.choice("On there", [], "The features that are on most at that token")
        self.found.layout.visibility = "hidden"
        rows = [[self.number, self.before, self.after], [self.token], [self.found]]
        self.panel = panel.Panel("Feature explorer", rows, height="22em")
        self.box, self.message, self.dashboard = self.panel.box, self.panel.message, self.panel.view

    def search(self) -> None:
        """List the features that are on at the typed token, or say in the message that there is none."""
        wanted = self.token.value
        try:
            hits = list(self._find(wanted))[:FOUND] if wanted else []
        except Exception as error:
            return self.panel.trouble(error)
        options = [(f"{feature} ({number(value)})", feature) for feature, value in hits]
        panel.offer(self.found, options)
        self.found.value = None
        self.found.layout.visibility = "visible" if options else "hidden"
        if wanted and not hits:
            return self.panel.say(f"No feature is on at “{visible(wanted)}” in these passages.")
        most = f"; strongest: feature {hits[0][0]}" if hits else ""
        return self.panel.say(f"{len(hits)} features are on most at “{visible(wanted)}”{most}." if wanted else "")

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
        except Exception as error:
            return self.panel.trouble(error)
        self._shown = self._known[wanted]
        self.dashboard.value = feature_dashboard(self._shown).html
        never = "" if self._shown.examples else " It is on nowhere in these passages."
        return self.panel.say(f"Feature {wanted} of {self.number.max + 1}.{never}")

    def _ipython_display_(self) -> None:
        nothing = Twin("<p>No feature was read.</p>", "No feature was read.")
        self.panel.show(feature_dashboard(self._shown) if self._shown else nothing)
