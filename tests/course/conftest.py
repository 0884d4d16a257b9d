import itertools
import linecache

import pytest

NUMBERS = itertools.count(1)


class Notebook(dict):
    """A notebook's variables; its cells keep their source, as IPython's do."""

    def run(self, source: str) -> str:
        """Execute a cell and return the file name that it goes by."""
        name = f"<cell {next(NUMBERS)}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec"), self)
        return name


@pytest.fixture
def notebook():
    return Notebook(__name__="__main__")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder of a learner's progress: never the real one."""
    monkeypatch.setenv("MECHKIT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
