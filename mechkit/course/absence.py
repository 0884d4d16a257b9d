"""What does a cell say that leans on a model which could not be had? The reason, not that some name is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType

from IPython import get_ipython
from IPython.core.interactiveshell import InteractiveShell


@contextmanager
def explained() -> Iterator[None]:
    """While a model is made ready: should that fail or be interrupted, the NameErrors of later cells say so.

    The first success, in whichever cell, ends it.
    """
    shell = get_ipython()
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if shell:
            shell.set_custom_exc((NameError,), partial(_tell, str(error) or "loading it was interrupted"))
        raise
    if shell:
        shell.set_custom_exc((), None)


def _tell(
    reason: str,
    shell: InteractiveShell,
    kind: type[NameError],
    error: NameError,
    trace: TracebackType,
    tb_offset: int | None = None,
) -> None:
    told = f"NameError: {error}. The model is not here yet: {reason}. Mend that, then run all from the first cell."
    error._render_traceback_ = lambda: [told]
    shell.showtraceback((kind, error, trace))
