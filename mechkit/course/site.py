"""The solved course as a web site: Sphinx and myst-nb, from stored outputs, nothing run and nothing fetched.

Pages ask for no other machine: formulas are MathML, which browsers draw by themselves, widgets are left out (their
still views stay), and the theme brings what it needs. Without JavaScript all is there but the search and the switch
between light and dark.
"""

import io
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.util.docutils import docutils_namespace, patch_docutils

from mechkit.course import authoring, glossary, pages
from mechkit.course.regions import MARKER

MARK = ".mechkit-site"  # known by it, a former site may be replaced
STYLE, SCRIPT = Path(__file__).with_suffix(".css"), Path(__file__).with_suffix(".js")
CHAPTER_LINK = re.compile(r'(href="\d\d_\w+)\.ipynb\b')
STILL = '<details class="mechkit-still"'  # what `mechkit.show.style` puts beside a widget
SETTINGS = {
    "project": "mechkit",
    "html_title": "mechkit",
    "language": "en",
    "extensions": ["myst_nb", __name__],
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {},
    "myst_enable_extensions": ["dollarmath"],
    "myst_heading_anchors": 3,
    "myst_heading_slug_func": f"{glossary.__name__}.{glossary.anchor.__name__}",
    "myst_update_mathjax": False,
    "html_math_renderer": "mathml",
    "html_theme": "furo",
    "html_static_path": ["_static"],
    "html_css_files": [STYLE.name],
    "html_js_files": [SCRIPT.name],
    "html_copy_source": False,
    "html_use_index": False,
    "html_show_copyright": False,
    "html_show_search_summary": False,  # fetches pages, which a browser refuses to a page opened from disk
}
INDEX = """# mechkit

A hands-on course in mechanistic interpretability: take a language model apart, in numbered notebooks that check what
you find. Here they are solved, with what they print and draw. To work through them yourself, install the course and run
`mechkit lab`.

| chapter | the question |
|---|---|
{rows}

The field's words are in the [glossary]({glossary}), the papers in the [reading map]({reading_map}).

```{{toctree}}
:hidden:

{names}
```
"""


def build_site(root: Path, out: Path) -> Path:
    """Write the site of a checkout's solutions, and return its first page.

    Args:
        out: Made if it is not there; a former site in it is replaced, once the new one is whole.
    Raises: ValueError if `out` holds anything else, a solution cannot be read, or a page has a broken link or worse.
    """
    if out.exists() and not _is_ours(out):
        raise ValueError(
            f"wanted a new folder for the site, or a former site; {out} holds something else: name another"
        )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        source, built = Path(folder, "source"), Path(folder, "site")
        _lay_out(root, source)
        _render(source, built, Path(folder, "parsed"))
        (built / MARK).touch()
        if out.exists():
            shutil.rmtree(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(built, out)
    return out / "index.html"


def setup(app: Sphinx) -> dict[str, bool]:
    """What makes this module an extension of Sphinx: formulas as MathML."""
    app.add_html_math_renderer("mathml", (_inline_formula, None), (_formula, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def still(solution: NotebookNode) -> NotebookNode:
    """A solution as the site shows it: no markers around answers, still views instead of widgets."""
    for cell in solution.cells:
        cell.metadata = NotebookNode()
        if cell.cell_type == "code":
            cell.source = "\n".join(line for line in cell.source.split("\n") if not MARKER.fullmatch(line))
            cell.outputs = [_shown(each) for each in cell.outputs if authoring.WIDGET not in each.get("data", {})]
    return solution


def _is_ours(out: Path) -> bool:
    return out.is_dir() and ((out / MARK).is_file() or not any(out.iterdir()))


def _lay_out(root: Path, source: Path) -> None:
    """What Sphinx reads: an index, the chapters standing still, the pages beside them."""
    (source / "_static").mkdir(parents=True)
    for file in (STYLE, SCRIPT):
        shutil.copyfile(file, source / "_static" / file.name)
    chapters = {path.name: still(authoring.read(path)) for path in authoring.solution_paths(root)}
    for name, notebook in chapters.items():
        (source / name).write_text(authoring.to_text(notebook), encoding="utf-8")
    for name, text in pages.pages(root).items():
        (source / name).write_text(text, encoding="utf-8")
    (source / "index.md").write_text(_index(chapters), encoding="utf-8")


def _index(chapters: Mapping[str, NotebookNode]) -> str:
    openings = {name: notebook.cells[0].source.split("\n") for name, notebook in chapters.items()}
    rows = [
        f"| [{opening[0].removeprefix('# ')}]({name}) | {opening[2].strip('*')} |" for name, opening in openings.items()
    ]
    names = "\n".join([*chapters, glossary.PAGE, pages.READING_MAP])
    return INDEX.format(rows="\n".join(rows), glossary=glossary.PAGE, reading_map=pages.READING_MAP, names=names)


def _render(source: Path, built: Path, parsed: Path) -> None:
    warnings = io.StringIO()
    try:
        with patch_docutils(), docutils_namespace():
            app = Sphinx(source, None, built, parsed, "html", SETTINGS, status=None, warning=warnings)
            app.build()
    except SphinxError as error:
        raise ValueError(f"wanted a site; Sphinx could not write it: {error}") from error
    if told := authoring.ANSI_COLOUR.sub("", warnings.getvalue()).strip():
        raise ValueError(f"wanted a site without faults; Sphinx found some:\n{told}")


def _shown(output: NotebookNode) -> NotebookNode:
    if "text/html" in output.get("data", {}):
        html = CHAPTER_LINK.sub(r"\1.html", output.data["text/html"])
        output.data["text/html"] = html.replace(STILL, STILL.replace("details", "details open"))
    return output


def _inline_formula(writer: Any, node: nodes.math) -> None:
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _formula(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode
