"""Every word of the field has its sentence, its chapter really uses it, and whoever misspells it is told."""

import re
from pathlib import Path

import pytest

from mechkit.course import authoring, glossary

ROOT = Path(__file__).parents[2]
TERMS = glossary.terms()
each_term = pytest.mark.parametrize("term", TERMS, ids=[term.name for term in TERMS])


def squeezed(text):
    return " ".join(re.sub(r"[\s*`_-]", " ", text.casefold()).split())


def prose(path):
    """A chapter's paragraphs, but for its lists of terms and papers, and those that speak of another chapter."""
    cells = [cell for cell in authoring.read(path).cells if cell.cell_type == "markdown"]
    texts = [cell.source for cell in cells if not cell.source.startswith(("**Terms met here**", "## Further reading"))]
    paragraphs = [part for text in texts for part in text.split("\n\n")]
    return squeezed("\n".join(part for part in paragraphs if not re.search(r"chapters? \d\d|\.ipynb", part)))


@pytest.fixture(scope="module")
def chapters():
    return {path.name[:2]: prose(path) for path in authoring.solution_paths(ROOT)}


@each_term
def test_a_term_is_met_first_in_the_chapter_that_it_names(term, chapters):
    used = re.compile(rf"\b{re.escape(squeezed(term.name))}s?\b")
    met = [number for number, text in chapters.items() if used.search(text)]
    assert met, "no chapter uses it"
    assert met[0] == term.chapter


@each_term
def test_a_term_is_said_in_one_sentence_and_sees_only_terms(term):
    assert term.meaning.endswith(".")
    assert not re.search(r"[.?!] [A-Z]", term.meaning)
    assert set(term.also) <= {each.name for each in TERMS} - {term.name}


def test_there_are_about_eighty_terms_in_the_order_of_the_alphabet_from_every_chapter(chapters):
    names = [term.name for term in TERMS]
    assert 75 <= len(names) <= 100
    assert names == sorted(names, key=str.casefold)
    assert {term.chapter for term in TERMS} == set(chapters)


@pytest.mark.parametrize("spelling", ["logit lens", "Logit Lens", " logit-lens ", "logit  lens"])
def test_a_term_is_found_however_it_is_spelled(spelling):
    said = str(glossary.glossary(spelling))
    assert "logit lens · first met in chapter 04" in said
    assert "as if the model stopped there" in said
    assert "See also affine lens." in said


def test_a_plural_is_its_term():
    assert "induction head · first met in chapter 05" in str(glossary.glossary("induction heads"))


@pytest.mark.parametrize(
    ("asked", "offered"), [("indution haed", "induction head"), ("patching", "activation patching")]
)
def test_an_unknown_term_is_answered_with_those_near_it(asked, offered):
    said = str(glossary.glossary(asked))
    assert f"{asked} · not in the glossary" in said
    assert re.search(rf"Did you mean .*{offered}.*\?", said)


def test_no_term_lists_all():
    said = str(glossary.glossary())
    assert f"Glossary · {len(TERMS)} terms" in said
    assert all(term.name in said for term in TERMS)


def test_an_entry_in_another_form_is_named():
    page = "## ablation\n\nTaking away.\n\n[Chapter 04](04_logit_lens.ipynb).\n\n## nat\n\nA unit, in no chapter.\n"
    with pytest.raises(ValueError, match=r"wanted of each term .*; came otherwise: nat$"):
        glossary.read_terms(page)
    assert glossary.read_terms(page.partition("## nat")[0]) == (glossary.Term("ablation", "Taking away.", "04"),)


def test_a_term_that_nothing_is_near_is_answered_kindly():
    assert "`mk.glossary()` lists what there is" in str(glossary.glossary("quux"))
