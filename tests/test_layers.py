"""The module map: a room imports only rooms above it, a module only modules in rows above its own."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Rooms and rows from top to bottom. Modules in one row may not import one another; a package counts as one.
ROOMS = {
    "network": "sites < downloads conversion < assets < model < tiny < loading < attention < hooks < cache replay",
    "methods": "metrics < toy < words < analogies < splits < probes erasure ccs < lens < affine attribution < heads"
    " < phase sweeps < ablation patching circuits < gradients tracing < editing < rewriting sae"
    " < sae_activations sae_steps < sae_training sae_metrics sae_files < sae_features sae_quiz",
    "data": "corpus openings prompts topics facts ioi published words lexicon < sampling properties"
    " < probe_results counterfacts patching_results < fact_results sae < labels < dictionaries",
    "show": "captions < style < plots words circuits features attention < explorers",
    "course": "exercise regions scope absence guesses < answer compare < checks < exercises < progress cards"
    " < report dashboard lesson < proofreading workspace selftest < authoring glossary < bench rivals sae_rivals"
    " doctor pages < site",
    "grading": "inside submission process folders < sandbox collect < replies judge setting records reports"
    " handout < grade < classroom exports cluster < session bench",
    "cli": "",
}


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


PATHS = {module_name(path): path for path in sorted((ROOT / "mechkit").rglob("*.py"))}


def place(module):
    """Room and row of a module, two numbers that grow downwards; a room's own file stands below its rows."""
    _, room, *rest = module.split(".")
    assert room in ROOMS, f"{module} is in no room of the module map"
    rows = [row.split() for row in ROOMS[room].split("<")]
    row = next((number for number, row in enumerate(rows) if rest and rest[0] in row), len(rows))
    assert row < len(rows) or not rest, f"{module} is not in the module map: give it a row in this test"
    return list(ROOMS).index(room), row


def imported(node):
    """Our modules that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name.split(".")[0] == "mechkit"]
    if not isinstance(node, ast.ImportFrom):
        return []
    assert node.level == 0, "imports are absolute"
    if node.module.split(".")[0] != "mechkit":
        return []
    full = [f"{node.module}.{alias.name}" for alias in node.names]
    return [name if name in PATHS else node.module for name in full]


def imports(module):
    tree = ast.parse(PATHS[module].read_text(encoding="utf-8"))
    return {name for node in ast.walk(tree) for name in imported(node)}


@pytest.mark.parametrize("module", [name for name in PATHS if name != "mechkit"])
def test_a_module_imports_only_what_stands_above_it(module):
    unit = module.split(".")[:3]
    for name in imports(module):
        assert name != "mechkit", f"{module} imports the front door"
        if name.split(".")[:3] != unit:
            assert place(name) < place(module), f"{module} imports {name}, which does not stand above it"


def test_the_front_door_imports_nothing_at_once():
    assert imports("mechkit") == set()


def test_there_is_no_cycle():
    TopologicalSorter({module: imports(module) - {module} for module in PATHS}).prepare()


@pytest.mark.parametrize("module", [name for name in PATHS if name != "mechkit.cli"])
def test_no_import_hides_in_a_function(module):
    tree = ast.parse(PATHS[module].read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    hidden = {name for function in functions for node in ast.walk(function) for name in imported(node)}
    assert not hidden, f"{module} imports {hidden} inside a function; the module map is there to avoid that"
