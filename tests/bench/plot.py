"""Draws ratios as bars, in SVG: a line at 1 is as fast as the other."""

from __future__ import annotations

import html
from collections.abc import Mapping

_WIDE, _NAME, _BAR, _GAP, _MOST = 900, 420, 12, 10, 2.0
_COLOURS = ("#2f6f9f", "#c8553d", "#6a994e", "#8e6c8a", "#d9a441", "#4d4d4d", "#5fa8a0", "#b56576")


def drawn(ratios: Mapping[str, Mapping[str, float]]) -> str:
    """Return a picture of ratios by work and pair; what is above 2 reaches to the edge."""
    pairs = list(dict.fromkeys(pair for each in ratios.values() for pair in each))
    colours = {pair: _COLOURS[at % len(_COLOURS)] for at, pair in enumerate(pairs)}
    parts: list[str] = []
    y = _GAP
    for pair in pairs:
        parts.append(f'<rect x="{_NAME}" y="{y}" width="12" height="{_BAR}" fill="{colours[pair]}"/>')
        parts.append(_text(_NAME + 18, y + _BAR - 2, pair))
        y += _BAR + 4
    top = y = y + _GAP
    unit = (_WIDE - _NAME - 60) / _MOST
    for work, each in ratios.items():
        parts.append(_text(8, y + _BAR - 2, work))
        for pair, ratio in each.items():
            width = min(ratio, _MOST) * unit
            parts.append(f'<rect x="{_NAME}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colours[pair]}"/>')
            parts.append(_text(_NAME + width + 4, y + _BAR - 2, f"{ratio:.2f}"))
            y += _BAR + 2
        y += _GAP
    line = f'<line x1="{_NAME + unit:.1f}" x2="{_NAME + unit:.1f}" y1="{top}" y2="{y}" stroke="#000"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDE}" height="{y + _GAP}" font-family="sans-serif">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *parts, line, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y}" font-size="11">{html.escape(text)}</text>'
