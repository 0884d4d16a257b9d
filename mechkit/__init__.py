"""mechkit: take a language model apart, in numbered notebooks that check what you find.

    import mechkit as mk
    lesson = mk.lesson("04")

The names below are loaded when first used, so that importing mechkit is instant.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "lesson": "mechkit.course.lesson",
    "load_model": "mechkit.network.loading",
    "LanguageModel": "mechkit.network.loading",
    "Edit": "mechkit.network.hooks",
    "edit": "mechkit.network.hooks",
    "run": "mechkit.network.cache",
    "Cache": "mechkit.network.cache",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"mechkit has no {name!r}; it offers {', '.join(sorted(_HOMES))}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
