"""A chapter in a real kernel that meets with accidents: no model, an interrupt, a death in the middle."""

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from jupyter_client.manager import AsyncKernelManager

SETUP = 'import time\nimport mechkit as mk\nlesson = mk.lesson("04")'
RIGHT = "def rank_of(logits, token):\n    return int((logits > logits[token]).sum())\nlesson.check(rank_of)"
ENDLESS = "def rank_of(logits, token):\n    while True:\n        pass\nlesson.check(rank_of)"
CHANGE = """
def edit(record):
    record["exercises"]["04_rank_of"]["status"] = "half"
    display("holds the lock")
    time.sleep(100)
lesson.progress.change(edit)
"""


@asynccontextmanager
async def kernel(**environment):
    """A kernel as JupyterLab starts one, and a way to run a cell in it."""
    manager = AsyncKernelManager(kernel_name="python3")
    await manager.start_kernel(env=os.environ | environment)
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=120)
        yield SimpleNamespace(manager=manager, client=client, run=lambda cell: run(client, cell))
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)


async def run(client, cell):
    """What a cell shows: errors and cards."""
    shown = []

    def show(message):
        content = message["content"]
        if message["msg_type"] == "error":
            shown.append("\n".join(content["traceback"]))
        elif message["msg_type"] == "display_data":
            shown.append(content["data"]["text/plain"])

    await client.execute_interactive(cell, timeout=120, output_hook=show, allow_stdin=False, store_history=False)
    return "\n".join(shown)


async def open_without_a_model(absent):
    async with kernel(MECHKIT_MODEL=absent) as here:
        first = await here.run(f"{SETUP}\nlm = lesson.model")
        assert first == f"ModelError: wanted a folder or the name of a hub model; came {absent!r}, which is neither"
        later = await here.run("logits, _ = mk.run(lm, 'The')")
        assert later.startswith("NameError: name 'lm' is not defined. The model is not here yet: wanted a folder or")
        assert later.endswith("Mend that, then run all from the first cell.")
        assert "\n" not in later
        asked = await here.run("def arrival(lm, prompts):\n    return 3\nlesson.check(arrival)")
        assert asked.startswith("✗ 04.7 arrival · no model\n  This check takes the model: wanted a folder or")
        assert "passed, 1 point" in await here.run(RIGHT)


async def interrupt_kill_and_open_again(home):
    async with kernel(MECHKIT_HOME=home) as first:
        assert await first.run(SETUP) == ""
        asyncio.get_running_loop().call_later(3, lambda: first.manager.provisioner.process.send_signal(signal.SIGINT))
        assert "04.1 rank_of · running\n  It was interrupted." in await first.run(ENDLESS)
        assert "passed, 1 point" in await first.run(RIGHT)
        first.client.execute(CHANGE)
        while (await first.client.get_iopub_msg(timeout=60))["msg_type"] != "display_data":
            pass
        first.manager.provisioner.process.kill()
    async with kernel(MECHKIT_HOME=home) as second:
        assert (await second.run(SETUP)).startswith(
            "○ Chapter 04, welcome back: 1 of 11 passed\n  Your progress is kept."
        )
        assert "passed, 1 point" in await second.run(RIGHT)


@pytest.mark.slow
def test_without_its_model_a_chapter_says_so_in_every_cell_that_wants_it(tmp_path):
    asyncio.run(open_without_a_model(str(tmp_path / "no model")))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows interrupts a kernel in another way")
def test_a_kernel_that_is_interrupted_and_then_dies_loses_no_progress(tmp_path):
    asyncio.run(interrupt_kill_and_open_again(str(tmp_path)))
