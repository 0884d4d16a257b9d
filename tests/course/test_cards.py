import io
import logging
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jupyterlab.commands import get_app_dir

from mechkit.course import cards
from mechkit.course.cards import Card, nothing_on_stderr, show

CARD = Card("wrong", "05.3 score · values", ("Yours reads `key - 1`.", "Next: look"), code="def score():\n    pass")


class Reader(HTMLParser):
    """What a browser would make of a card: its text, its elements, and those that are still open."""

    def __init__(self, html):
        super().__init__()
        self.text, self.elements, self.open = "", [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def html(card):
    return card._repr_mimebundle_()["text/html"]


def test_plain_text_is_the_whole_card():
    assert str(CARD) == (
        "✗ 05.3 score · values\n  Yours reads `key - 1`.\n  Next: look\n    def score():\n        pass"
    )
    assert CARD._repr_mimebundle_()["text/plain"] == str(CARD)


def test_html_says_what_plain_text_says():
    page = Reader(html(CARD))
    assert "".join(page.text.split()) == "".join(str(CARD).replace("`", "").split())
    assert page.open == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("about *how far* it is", "about <em>how far</em> it is"),
        ("*Which* one?", "<em>Which</em> one?"),
        ("`a * b` and `*args`", "<code>a * b</code> and <code>*args</code>"),
        ("2 * 3 * 4, x*y*z", "2 * 3 * 4, x*y*z"),
    ],
)
def test_words_between_asterisks_are_stressed_and_products_left_alone(text, shown):
    assert shown in html(Card("quiet", "title", (text,)))


def test_words_between_backticks_are_code():
    assert "<code>key - 1</code>" in html(CARD)


@pytest.mark.parametrize("place", ["title", "lines", "code"])
def test_nothing_in_a_card_is_html(place):
    attack = '<script>alert("&")</script> `<img src=x onerror=alert(1)>`'
    card = Card("wrong", **({"title": "t"} | {place: (attack,) if place == "lines" else attack}))
    page = Reader(html(card))
    assert {tag for tag, _ in page.elements} <= {"div", "b", "p", "pre", "code"}
    assert "<script>" in page.text
    assert attack in str(card)


@pytest.mark.parametrize("text", ["\x1b[31mred\x07", "half \ud800", "nul \x00", "back\rspace"])
def test_what_no_screen_can_show_is_replaced(text):
    for shown in (str(Card("quiet", text, (text,), code=text)), html(Card("quiet", text, (text,), code=text))):
        shown.encode("utf-8")
        assert not re.search(r"[\x00-\x08\x0b-\x1f]", shown)
        assert "�" in shown


def test_a_card_is_announced_by_a_screen_reader():
    (tag, attributes), *_ = Reader(html(CARD)).elements
    assert (tag, attributes["role"]) == ("div", "status")


def test_the_state_is_said_by_more_than_colour():
    marks = {tone: str(Card(tone, "same"))[0] for tone in ("right", "wrong", "quiet")}
    assert marks == {"right": "✓", "wrong": "✗", "quiet": "○"}
    assert all(mark in Reader(html(Card(tone, "same"))).text for tone, mark in marks.items())


def test_outside_a_notebook_a_card_is_printed(capsys):
    show(CARD)
    assert capsys.readouterr().out == f"{CARD}\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_console_that_lacks_a_character_shows_the_rest(monkeypatch, encoding):
    console = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", console)
    show(CARD)
    console.flush()
    assert "05.3 score" in console.buffer.getvalue().decode(encoding)


def test_in_a_notebook_a_card_is_displayed(monkeypatch):
    shown = []

    class Shell:
        get_ipython = staticmethod(lambda: object())
        display = type("display", (), {"display": staticmethod(shown.append)})

    monkeypatch.setitem(sys.modules, "IPython", Shell)
    show(CARD)
    assert shown == [CARD]


def test_nothing_reaches_stderr(capfd):
    logger = logging.getLogger("somebody")
    logger.addHandler(logging.StreamHandler(sys.stderr))
    with nothing_on_stderr():
        print("python", file=sys.stderr)
        os.write(2, b"C")
        logger.error("logged")
    assert capfd.readouterr().err == ""
    os.write(2, b"later")
    print("and later", file=sys.stderr)
    logger.error("logged later")
    assert capfd.readouterr().err == "laterand later\nlogged later\n"
    logger.handlers.clear()


def test_stderr_is_back_after_an_exception(capfd):
    with pytest.raises(ZeroDivisionError), nothing_on_stderr():
        raise ZeroDivisionError
    os.write(2, b"back")
    assert capfd.readouterr().err == "back"


def test_every_tone_has_a_mark_and_a_colour():
    assert cards.MARKS.keys() == cards.COLOURS.keys()


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ({"JPY_SESSION_NAME": "04_logit_lens.ipynb"}, cards.SHUTDOWN.text + "\n"),
        ({"JPY_SESSION_NAME": "04_logit_lens.ipynb", "VSCODE_PID": "1"}, ""),
        ({}, ""),
    ],
)
def test_only_a_live_jupyterlab_is_offered_a_button(place, told, monkeypatch, capsys):
    for name in ("JPY_SESSION_NAME", "VSCODE_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    cards.offer_shutdown()
    assert capsys.readouterr().out == told


def test_the_button_names_a_command_that_this_jupyterlab_has():
    [button] = [attributes for tag, attributes in Reader(cards.SHUTDOWN.html).elements if tag == "button"]
    scripts = list((Path(get_app_dir()) / "static").glob("jlab_core.*.js"))
    assert any(f'"{button["data-commandlinker-command"]}"' in each.read_text("utf-8") for each in scripts)
    assert all('"commandlinker-command"' in each.read_text("utf-8") for each in scripts)
