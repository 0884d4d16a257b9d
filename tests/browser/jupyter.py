"""JupyterLab as `mechkit lab` starts it, and a notebook in it as a learner works with it: by menu, mouse and keys.

What the learner cannot see at once, which cells still run or what a cell's kernel answered, is asked of
JupyterLab's own objects in the page.
"""

import json
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page

from mechkit.course.progress import Progress
from mechkit.course.workspace import copy_chapters, open_lab

SOLUTIONS = Path(__file__).parents[2] / "solutions"
HOST = "127.0.0.1"
# nobody asks a test whether to fetch news; a program that asks the network finds no way out
SETTINGS = {"fetchNews": "false", "checkForUpdates": False}
CLOSED = f"http://{HOST}:9"
PANEL = "jupyterapp.shell.currentWidget"
CELLS = f"{PANEL}.content.widgets"
MODEL = f"{CELLS}.find(cell => cell.model.id === name).model"
OUTPUT = ".jp-NotebookPanel .jp-OutputArea-output"
# figures are megabytes, so only errors are asked for what they hold
STATES = f"""() => {CELLS}.filter(cell => cell.model.type === 'code').map(({{model}}) => ({{
  id: model.id, running: model.executionState === 'running', count: model.executionCount,
  errors: Array.from({{length: model.outputs.length}}, (_, i) => model.outputs.get(i))
    .filter(each => each.type === 'error').map(each => each.toJSON().evalue),
}}))"""


class Lab:
    """A JupyterLab server of its own, with its own settings and progress, on the loopback interface only.

    Args:
        folder: Empty; holds all that the server and its kernels write: the chapters, and the solutions in `solved/`.
    """

    def __init__(self, folder: Path):
        self.home, self.work = folder / "home", folder / "work"
        copy_chapters(self.work)
        shutil.copytree(SOLUTIONS, self.work / "solved", ignore=shutil.ignore_patterns(".*"))
        settings = folder / "config/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
        settings.parent.mkdir(parents=True)
        settings.write_text(json.dumps(SETTINGS))
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port = free.getsockname()[1]
        own = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
        own |= {"IPYTHONDIR": str(folder / "ipython"), "MECHKIT_HOME": str(self.home)}
        self._environment = own | {"HTTP_PROXY": CLOSED, "HTTPS_PROXY": CLOSED, "NO_PROXY": f"{HOST},localhost"}
        self._log = folder / "server.log"
        open_lab(self.work, browser=False, run=self._start)

    def _start(self, command: list[str], folder: Path, environment: dict[str, str]) -> int:
        options = [f"--ServerApp.ip={HOST}", f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0"]
        options += ["--IdentityProvider.token=", "--ServerApp.terminals_enabled=False"]
        options += ["--LabApp.extension_manager=readonly", "--LabApp.expose_app_in_browser=True"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*command, *options], cwd=folder, env=environment | self._environment, stdout=log, stderr=log
            )
        for _ in range(600):
            with socket.socket() as door:
                if door.connect_ex((HOST, self.port)) == 0:
                    return 0
            time.sleep(0.1)
        self.close()
        raise TimeoutError(self._log.read_text())

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self._process.pid)

    def address(self, path: str) -> str:
        return f"http://{HOST}:{self.port}/lab/tree/{path}?reset"

    def kernels(self) -> list[psutil.Process]:
        children = self.process.children(recursive=True)
        return [each for each in children if "ipykernel_launcher" in " ".join(each.cmdline())]

    def progress(self) -> dict:
        return Progress(self.home).read()

    def statuses(self) -> dict[str, str]:
        """What the lessons recorded: exercise id to status."""
        return {name: entry["status"] for name, entry in self.progress()["exercises"].items()}

    def forget(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)

    def close(self) -> None:
        """End the server and whatever it has started."""
        left = [self.process, *self.process.children(recursive=True)]
        self._process.terminate()
        for process in psutil.wait_procs(left, timeout=10)[1]:
            process.kill()
        self._process.wait(timeout=10)


class Guard:
    """What went wrong behind a page: errors in its console, and requests to anywhere but this machine."""

    def __init__(self, context: BrowserContext):
        self.seen: list[str] = []
        context.on("console", self._console)
        context.on("weberror", lambda error: self.seen.append(f"page error: {error.error}"))
        context.on("request", lambda request: self._address(request.url))
        context.on("page", lambda page: page.on("websocket", lambda socket: self._address(socket.url)))

    def _console(self, message: ConsoleMessage) -> None:
        # Jupyter Server answers 500 to whoever lists its kernels in the moment in which one is being started; the
        # page asks again by itself. It is the only error that we do not count.
        listing = "500 (Internal" in message.text and "/api/kernels?" in message.location["url"]
        if message.type == "error" and not listing:
            self.seen.append(f"console: {message.text} ({message.location['url']})")

    def _address(self, url: str) -> None:
        if not re.match(rf"(data:|blob:|about:|file:|(http|ws)://{re.escape(HOST)}:)", url):
            self.seen.append(f"request: {url}")


class Notebook:
    """One notebook, open in JupyterLab, with a kernel of its own that is ready."""

    def __init__(self, browser: Browser, lab: Lab, path: str):
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
        self.guard = Guard(self.context)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.page.goto(lab.address(path))
        self.ready()

    def close(self) -> None:
        """Shut the kernel down and leave."""
        self.page.evaluate(f"{PANEL}.sessionContext.shutdown()")
        self.context.close()

    def ready(self) -> None:
        """Wait for a kernel that has nothing to do."""
        idle = f"window.jupyterapp && {PANEL}?.sessionContext?.session?.kernel?.status === 'idle'"
        self.page.wait_for_function(idle, polling=100)

    def run_all(self) -> None:
        """Choose "Run All Cells" from the menu, without waiting for them."""
        self.page.locator(".lm-MenuBar-item", has_text=re.compile("^Run$")).click()
        self.page.locator(".lm-Menu-item", has_text=re.compile("^Run All Cells")).first.click()

    def finish(self, seconds: float = 300) -> None:
        """Wait until every cell has run, or one has failed."""
        self.page.wait_for_function(
            f"""() => {{
              const all = ({STATES})();
              const whole = all.every(cell => cell.count) || all.some(cell => cell.errors.length);
              return whole && !all.some(cell => cell.running);
            }}""",
            timeout=1000 * seconds,
            polling=500,
        )

    def save(self) -> None:
        """Save by keys, and wait until the file is written."""
        self.page.keyboard.press("ControlOrMeta+s")
        self.page.wait_for_function(f"!{PANEL}.context.model.dirty")

    def failed(self) -> dict[str, list[str]]:
        """The cells that show an error, and which."""
        return {cell["id"]: cell["errors"] for cell in self.page.evaluate(STATES) if cell["errors"]}

    def cell(self, name: str) -> Locator:
        """A cell by its id."""
        place = self.page.evaluate(f"name => {CELLS}.findIndex(cell => cell.model.id === name)", name)
        assert place >= 0, f"no cell {name}"
        return self.page.locator(".jp-NotebookPanel:visible .jp-Notebook-cell").nth(place)

    def said(self, name: str) -> str:
        """What stands below a cell."""
        return "\n".join(self.cell(name).locator(".jp-OutputArea-output").all_inner_texts())

    def edit(self, name: str, source: str) -> None:
        """Replace a cell's source, as by selecting all of it and typing."""
        self.cell(name).locator(".cm-content").click()
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.insert_text(source)
        assert self.page.evaluate(f"name => {MODEL}.sharedModel.source", name) == source

    def start(self, name: str) -> None:
        """Run a cell by keys, without waiting for it."""
        self.cell(name).locator(".jp-InputPrompt").click()
        self.page.keyboard.press("Control+Enter")

    def run(self, name: str) -> str:
        """Run a cell, and return what it says when it has run."""
        # a kernel that was started again counts from 1 again, so the new count is known by there being none before
        self.page.evaluate(f"name => {{ {MODEL}.executionCount = null }}", name)
        self.start(name)
        self.page.wait_for_function(
            f"name => {MODEL}.executionCount && {MODEL}.executionState !== 'running'", arg=name, polling=100
        )
        return self.said(name)

    def add_below(self, name: str, source: str) -> str:
        """A new cell below another; its id."""
        self.cell(name).locator(".jp-InputPrompt").click()
        self.page.keyboard.press("b")
        made = self.page.evaluate(f"{PANEL}.content.activeCell.model.id")
        self.edit(made, source)
        return made

    def theme(self, name: str) -> None:
        """Put on JupyterLab's "Light" or "Dark" theme."""
        self.page.evaluate(
            "theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", f"JupyterLab {name}"
        )
        self.page.wait_for_selector(f"body[data-jp-theme-name='JupyterLab {name}']", state="attached")

    def width(self, pixels: int) -> None:
        self.page.set_viewport_size({"width": pixels, "height": 900})

    def too_wide(self) -> list[str]:
        """The beginnings of what does not fit its column, and that the keyboard does not reach to scroll it."""
        wide = "all.filter(each => each.scrollWidth > each.clientWidth + 1 && each.tabIndex < 0)"
        parts = self.page.locator(f"{OUTPUT}, {OUTPUT} .widget-html")
        return parts.evaluate_all(f"all => {wide}.map(each => each.innerText.slice(0, 80))")

    def draw_all(self) -> None:
        """Have JupyterLab draw the cells that are out of sight, which axe-core would pass over."""
        self.page.add_style_tag(content=".jp-Cell { content-visibility: visible !important }")


class Explorer:
    """A chapter's explorer. Each move waits until what is shown has changed, and the kernel has nothing left to do."""

    def __init__(self, notebook: Notebook, cell: str):
        self._notebook, self.page = notebook, notebook.page
        self._box = notebook.cell(cell).locator(".mk-explorer").first

    def press(self, control: str, key: str, text: str = "") -> None:
        """Press a key on a control, after typing a text into it if there is one."""
        before, part = self._shown(), self._box.locator(control).first
        part.focus()
        if text:
            part.fill(text)
        self.page.keyboard.press(key)
        self._wait(before)

    def click(self, control: str) -> None:
        """Click on a control, nearer its right end: a slider then moves."""
        before, part = self._shown(), self._box.locator(control).first
        size = part.bounding_box()
        part.click(position={"x": 0.8 * size["width"], "y": 0.5 * size["height"]})
        self._wait(before)

    def _shown(self) -> str:
        return "".join(self._box.locator(".widget-html-content").evaluate_all("all => all.map(each => each.innerHTML)"))

    def _wait(self, before: str) -> None:
        end = time.monotonic() + 60
        while self._shown() == before:
            assert time.monotonic() < end, f"nothing changed in: {before}"
            self.page.wait_for_timeout(50)
        self.page.wait_for_timeout(500)
        self._notebook.ready()


def plain(text: str) -> str:
    """A text without what a page may write differently: marks of code and stress, spaces, line ends."""
    return "".join(re.sub(r"[`*]", "", text).split())
