"""Can everybody use what is on a page? axe-core's answer, as sentences."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

GRAVE = ("serious", "critical")
# ipywidgets gives the handle of a slider no name (its label only stands beside it) and no way to give it one from
# Python: the only finding that is not ours to mend
THEIRS = ".widget-slider .noUi-handle"

# Preloading asks for style sheets once more, which a browser refuses to a page opened from disk. All that is found to
# be well is megabytes: one example of each will do.
OPTIONS = {"preload": False, "resultTypes": ["violations"]}


def accessible(page: Page, where: str = "html") -> list[str]:
    """What axe-core finds grave in the parts of a page that a CSS selector names; nothing, if all is well.

    What is folded away is unfolded for it, as a reader would.
    """
    folded = page.locator(f":is({where}) details:not([open])").element_handles()
    for each in folded:
        each.evaluate("each => each.open = true")
    parts = {"include": [[where]], "exclude": [[THEIRS]]}
    found = Axe().run(page, context=parts, options=OPTIONS).response
    for each in folded:
        each.evaluate("each => each.open = false")
    assert found["passes"], f"nothing to look at in {where}"
    return [
        f"{each['id']} ({each['impact']}): {each['help']}: {node['html'][:300]}"
        for each in found["violations"]
        if each["impact"] in GRAVE
        for node in each["nodes"]
    ]
