"""Renders the sentences of threads and summaries from `templates/`; people's text passes the `literal` filter."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bot.cards import clock
from bot.grant_cards import masked_list
from bot.text import one_line, sentence
from policies.engine.durations import format_duration
from workflows.words import counted

# What leaves here is plain text for a rich-text element, never markup, so there is nothing to escape for HTML.
_environment = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    undefined=StrictUndefined,
    autoescape=False,  # noqa: S701
    trim_blocks=True,
    lstrip_blocks=True,
)
REASON_TOLD = 2_500
"""Characters of a person's reason in a thread, which promises to have it."""
_environment.filters |= {
    "literal": one_line,
    "told": lambda text: one_line(text, REASON_TOLD),
    "sentence": sentence,
    "counted": counted,
    "clock": clock,
    "masked_list": masked_list,
    "duration": lambda seconds: format_duration(timedelta(seconds=seconds)),
}


def line(name: str, **facts: Any) -> str:
    """Return a template's text."""
    return _environment.get_template(f"{name}.txt.j2").render(**facts).strip()
