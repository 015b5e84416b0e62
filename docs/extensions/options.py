"""Classes of options on the page of the API: fields with the help texts of the command line."""

from dataclasses import MISSING
from typing import Any

from sphinx.application import Sphinx

from edgeseg.options.base import Options, settings


def fields(
    _app: Sphinx, _what: str, _name: str, subject: Any, _options: Any, lines: list[str]
) -> None:
    """Append a section for the fields, which Napoleon formats."""
    if not _is_options(subject):
        return
    lines += ["", "Attributes:"]
    lines += [
        f"    {name}: {setting.option.help}"
        for name, setting in settings(subject).items()
        if setting.option is not None
    ]


def signature(
    _app: Sphinx, _what: str, _name: str, subject: Any, _options: Any, _shown: str, returns: str
) -> tuple[str, str] | None:
    """Leave the metadata out of the signature."""
    if not _is_options(subject):
        return None
    parts = (
        name if setting.default is MISSING else f"{name}={setting.default!r}"
        for name, setting in settings(subject).items()
    )
    return f"({', '.join(parts)})", returns


def _is_options(subject: Any) -> bool:
    return isinstance(subject, type) and issubclass(subject, Options)


def setup(sphinx: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    sphinx.connect("autodoc-process-docstring", fields, priority=400)  # before Napoleon
    sphinx.connect("autodoc-process-signature", signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
