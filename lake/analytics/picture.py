"""Pictures as SVG within HTML that needs nothing else, and takes its ink from where it is shown: dark or light."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from lake.errors import InvalidInput

BEFORE, AFTER = "#3d85c6", "#e07b39"  # both stand out from black and from white
_WIDTH = 640
_STYLE = (
    "<style>.lake-report{font:14px/1.5 system-ui,sans-serif;max-width:44rem;color:inherit}"
    ".lake-report svg{width:100%;height:auto;color:inherit}.lake-report p{margin:.2rem 0 .6rem}"
    ".lake-report pre{white-space:pre-wrap;font:inherit;background:none;color:inherit}"
    ".lake-report svg text{fill:currentColor;font:12px system-ui,sans-serif}</style>"
)
_PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
    '<meta name="viewport" content="width=device-width"><title>{title}</title></head><body>{body}</body></html>\n'
)

Section = tuple[str, str, str]
"""A heading, what the picture means, the picture."""


def page(lines: Sequence[str], sections: Sequence[Section]) -> str:
    """Put lines of text, and pictures with what they mean, into a piece of HTML."""
    text = html.escape("\n".join(lines))
    parts = [f"<h4>{html.escape(title)}</h4><p>{html.escape(means)}</p>{svg}" for title, means, svg in sections]
    return f'{_STYLE}<div class="lake-report"><pre>{text}</pre>{"".join(parts)}</div>'


def save(path: str | Path, title: str, body: str) -> Path:
    """Write a whole page.

    Raises
    ------
    InvalidInput
        The file cannot be written.
    """
    place = Path(path)
    try:
        place.write_text(_PAGE.format(title=html.escape(title), body=body), encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"cannot write {str(place)!r}: {error}") from error
    return place


def columns(heights: Sequence[float], line: float | None = None) -> str:
    """Draw a column for each number, and a line across."""
    top, tall = max([*heights, line or 0, 1e-9]), 120.0
    wide = _WIDTH / max(1, len(heights))
    parts = [
        _bar(i * wide, tall - tall * h / top, max(0.5, wide - min(2.0, wide / 4)), tall * h / top, f"{h:,}")
        for i, h in enumerate(heights)
    ]
    if line is not None:
        parts.append(_line(0, tall - tall * line / top, _WIDTH, tall - tall * line / top, "4 3"))
    return _svg(tall + 4, parts)


def histogram(held: Sequence[int], low: float, high: float, seen: float) -> str:
    """Draw what chance gives as columns, of equal width from `low` to `high`, and what was seen as a line."""
    span, tall = (high - low) or 1.0, 70.0
    wide, top = _WIDTH / max(1, len(held)), max([*held, 1])
    parts = [_bar(i * wide, 16 + tall - tall * n / top, wide - 1, tall * n / top) for i, n in enumerate(held)]
    at = (seen - low) / span * (_WIDTH - 2) + 1
    parts += [_line(at, 16, at, 16 + tall, width=2), _text(at, 11, f"seen: {seen:.4g}", at / _WIDTH)]
    parts += [_text(0, tall + 32, f"{low:.3g}", 0), _text(_WIDTH, tall + 32, f"{high:.3g}", 1)]
    return _svg(tall + 38, parts)


def shifts(rows: Sequence[tuple[str, float, float, float, float, bool]]) -> str:
    """Draw shares, one line each: name, before, after, the interval of after, whether it stands out."""
    top, left, tall = max([1e-9, *(max(before, after, high) for _, before, after, _, high, _ in rows)]), 250.0, 22.0
    scale = (_WIDTH - left - 60) / top
    parts = []
    for i, (name, before, after, low, high, marked) in enumerate(rows):
        y = i * tall + 14
        parts.append(_text(left - 8, y + 4, ("● " if marked else "") + name[:38], 1))
        parts.append(_line(left + low * scale, y, left + high * scale, y, width=4, ink=AFTER, faint=0.4))
        parts.append(_line(left + before * scale, y, left + after * scale, y))
        parts += [_dot(left + before * scale, y, 4.5, BEFORE), _dot(left + after * scale, y, 4.5, AFTER)]
        parts.append(_text(left + max(before, after, high) * scale + 8, y + 4, f"{before:.1%} → {after:.1%}", 0))
    return _svg(len(rows) * tall + 8, parts)


def scatter(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> str:
    """Draw points of two kinds, mingled so that none covers the other."""
    points = [(x, y, BEFORE) for x, y in before] + [(x, y, AFTER) for x, y in after]
    if not points:
        return _svg(10, [])
    xs, ys, tall = [x for x, _, _ in points], [y for _, y, _ in points], 320.0
    x0, wide, y0, high = min(xs), (max(xs) - min(xs)) or 1, min(ys), (max(ys) - min(ys)) or 1
    mingled = sorted(enumerate(points), key=lambda p: p[0] * 7919 % 10007)
    parts = [
        _dot(6 + (x - x0) / wide * (_WIDTH - 12), 6 + (y - y0) / high * (tall - 12), 2.5, ink, 0.6)
        for _, (x, y, ink) in mingled
    ]
    return _svg(tall, parts)


def _svg(tall: float, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {tall:.0f}" role="img" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _bar(x: float, y: float, wide: float, tall: float, says: str = "") -> str:
    title = f"<title>{html.escape(says)}</title>" if says else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall:.1f}" fill="{BEFORE}">{title}</rect>'


def _line(
    x0: float, y0: float, x1: float, y1: float, dash: str = "", *, width: float = 1, ink: str = "", faint: float = 1
) -> str:
    return (
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{ink or "currentColor"}" '
        f'stroke-width="{width}" stroke-dasharray="{dash or "none"}" opacity="{faint}"/>'
    )


def _dot(x: float, y: float, radius: float, ink: str, faint: float = 1) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{ink}" opacity="{faint}"/>'


def _text(x: float, y: float, says: str, anchor: float) -> str:
    side = "start" if anchor < 1 / 3 else "end" if anchor > 2 / 3 else "middle"
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{side}">{html.escape(says)}</text>'
