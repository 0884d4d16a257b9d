"""What a learner reads: one card, as HTML in the notebook and as plain text everywhere else.

A card says its state in words, never by colour alone, and is announced by a screen reader (`role="status"`).
"""

import contextlib
import html
import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mechkit.show.captions import Twin

Tone = Literal["right", "wrong", "quiet"]

# readable on JupyterLab's light and dark backgrounds alike; the colours are Okabe and Ito's
COLOURS = {"right": "#009E73", "wrong": "#D55E00", "quiet": "#7F7F7F"}
MARKS = {"right": "✓", "wrong": "✗", "quiet": "○"}
SHUTDOWN = Twin(
    html='<p><button type="button" class="jp-mod-styled" data-commandlinker-command="kernelmenu:shutdown">'
    "Shut this kernel down</button> It gives this chapter's memory back, and the notebook then says <i>No Kernel</i>. "
    "What you wrote and your progress stay.</p>",
    text="Kernel ▸ Shut Down Kernel gives this chapter's memory back. What you wrote and your progress stay.",
)


@dataclass(frozen=True)
class Card:
    """A title line and paragraphs; words between backticks are set as code, between asterisks stressed.

    Args:
        tone: What the mark in front of the title says: right, wrong, or neither.
        code: A block of source shown below the paragraphs.
    """

    tone: Tone
    title: str
    lines: tuple[str, ...] = ()
    code: str = ""

    def __str__(self) -> str:
        body = [f"  {line}" for line in self.lines if line]
        source = [f"    {line}" for line in self.code.splitlines()]
        return _printable("\n".join([f"{MARKS[self.tone]} {self.title}", *body, *source]))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self._html()}

    def _html(self) -> str:
        paragraphs = "".join(f'<p style="margin:.2em 0 0 1.4em">{_inline(line)}</p>' for line in self.lines if line)
        source = f'<pre style="margin:.4em 0 0 1.4em">{html.escape(_printable(self.code))}</pre>' if self.code else ""
        return (
            f'<div role="status" style="border-left:4px solid {COLOURS[self.tone]};padding:.3em .8em;max-width:46em">'
            f"<b>{MARKS[self.tone]} {_inline(self.title)}</b>{paragraphs}{source}</div>"
        )


def show(card: Card | Twin) -> None:
    """Display a card in a notebook, or print its text anywhere else."""
    interactive = sys.modules.get("IPython")
    if interactive and interactive.get_ipython() is not None:
        interactive.display.display(card)
    else:
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        print(str(card).encode(encoding, "replace").decode(encoding))  # not every console knows ✗


def offer_shutdown() -> None:
    """In a live JupyterLab, a button that shuts this notebook's kernel down; elsewhere nothing.

    The button names JupyterLab's own command (its "command linker" runs it): no script, no address, no token.
    """
    if "JPY_SESSION_NAME" in os.environ and "VSCODE_PID" not in os.environ:
        show(SHUTDOWN)


@contextlib.contextmanager
def nothing_on_stderr() -> Iterator[None]:
    """Keep stderr empty, also of what C writes: nbgrader gives 0 for a cell with a single warning there."""
    kept, nowhere, logged = os.dup(2), os.open(os.devnull, os.O_WRONLY), logging.root.manager.disable
    os.dup2(nowhere, 2)
    logging.disable()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logged)
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _inline(text: str) -> str:
    """Words between backticks as code, others between asterisks stressed; `a * b * c` stays what it is."""
    marked = re.compile(r"`(?P<code>[^`]+)`|(?<![\w*])\*(?P<em>[^\s*`](?:[^*`]*[^\s*`])?)\*(?![\w*])")
    return marked.sub(lambda m: f"<{m.lastgroup}>{m[m.lastgroup]}</{m.lastgroup}>", html.escape(_printable(text)))


def _printable(text: str) -> str:
    """The text without control characters and half characters, which neither a terminal nor a notebook can take."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text)
