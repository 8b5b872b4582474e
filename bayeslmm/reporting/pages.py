"""A self-contained HTML page from texts, tables and figures: no network, no other file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

type Format = Callable[[Any], str]
# The identity matrix in a formula, and signs between its parts.
IDENTITY = "<mi mathvariant='bold'>I</mi>"
EQUALS, PLUS, FOLLOWS, TIMES = (f"<mo>{sign}</mo>" for sign in "=+∼⊗")


@dataclass
class Section:
    """A part of the page: a heading with an anchor, and pieces of HTML below it."""

    anchor: str
    title: str
    short: str
    pieces: list[str] = field(default_factory=list)

    def add(self, *pieces: str) -> Section:
        """Append pieces of HTML; empty ones are left out."""
        self.pieces += [piece for piece in pieces if piece]
        return self


def page(title: str, lead: str, sections: Iterable[Section], *, head: str, foot: str) -> str:
    """The whole page.

    Parameters
    ----------
    title, lead, foot : str
        Heading, the line below it, and the last line, as text.
    sections : iterable of Section
        In their order.
    head : str
        HTML for the head: scripts of interactive figures.
    """
    shown = list(sections)
    links = "".join(f'<a href="#{s.anchor}">{escape(s.short)}</a>' for s in shown)
    body = "\n".join(
        f'<section id="{s.anchor}"><h2>{escape(s.title)}</h2>\n'
        + "\n".join(s.pieces)
        + "</section>"
        for s in shown
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_asset('report.css')}</style>\n{head}\n</head>\n"
        f"<body>\n<header><div><h1>{escape(title)}</h1><p>{escape(lead)}</p></div></header>\n"
        f'<nav aria-label="Sections"><div>{links}</div></nav>\n<main>\n{body}\n</main>\n'
        f"<footer><p>{escape(foot)}</p></footer>\n<script>\n{_asset('report.js')}</script>\n"
        "</body>\n</html>\n"
    )


def _asset(name: str) -> str:
    return (files("bayeslmm.reporting") / "assets" / name).read_text(encoding="utf-8")


def escape(text: object) -> str:
    """Text for HTML."""
    return html.escape(str(text))


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text; `kind` is its class."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def heading(text: str) -> str:
    """A heading within a section."""
    return f"<h3>{escape(text)}</h3>"


def items(texts: Iterable[str]) -> str:
    """A list of plain texts."""
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def definitions(pairs: Mapping[str, object]) -> str:
    """Terms and what they are."""
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in pairs.items())
    return f"<dl>{rows}</dl>"


def table(
    frame: pd.DataFrame,
    formats: Mapping[str, Format] | None = None,
    *,
    caption: str = "",
    sortable: bool = False,
) -> str:
    """A table of the frame's columns, without its index.

    Parameters
    ----------
    frame : DataFrame
        What is shown; the names of columns are the headers.
    formats : mapping of str to callable, optional
        How the values of a column are written; missing values are always a dash.
    caption : str
        What the table says.
    sortable : bool
        Whether a click on a header sorts.
    """
    formats = formats or {}
    textual = {name: not pd.api.types.is_numeric_dtype(frame[name]) for name in frame}
    head = "".join(
        f'<th scope="col"{_text_class(textual[name])}>{escape(name)}</th>' for name in frame
    )
    rows = "".join(
        "<tr>"
        + "".join(
            _cell(value, formats.get(str(name), str), text=textual[name])
            for name, value in zip(frame.columns, row, strict=True)
        )
        + "</tr>"
        for row in frame.itertuples(index=False)
    )
    kind = ' class="sortable"' if sortable else ""
    below = f'<p class="note">{escape(caption)}</p>' if caption else ""
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{below}"
    )


def _text_class(text: bool) -> str:
    return ' class="text"' if text else ""


def _cell(value: Any, write: Format, *, text: bool) -> str:
    if pd.isna(value):
        return f'<td data-value=""{_text_class(text)}>–</td>'
    key = f"{float(value):.17g}" if isinstance(value, int | float | np.number) else str(value)
    return f'<td data-value="{escape(key)}"{_text_class(text)}>{escape(write(value))}</td>'


def figure(
    draw: Callable[[Axes], Any], size: tuple[float, float], alt: str, caption: str = ""
) -> str:
    """A static figure drawn by matplotlib, as an embedded PNG.

    Parameters
    ----------
    draw : callable
        Draws on the axes that it is given.
    size : (float, float)
        Width and height in inches.
    alt : str
        What it shows, in words.
    caption : str
        The line below it.
    """
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    width = round(96 * size[0])
    return f'<figure class="still" style="width:{width}px">{image(draw, size, alt)}{below}</figure>'


def image(draw: Callable[[Axes], Any], size: tuple[float, float], alt: str) -> str:
    """The figure alone, as an image element."""
    from matplotlib.figure import Figure

    made = Figure(figsize=size, layout="constrained")
    draw(made.add_subplot())
    file = io.BytesIO()
    made.savefig(file, format="png", dpi=144, metadata={"Software": None})
    data = base64.b64encode(file.getvalue()).decode("ascii")
    width = round(96 * size[0])
    return f'<img alt="{escape(alt)}" width="{width}" src="data:image/png;base64,{data}">'


def interactive(live: str, still: str, caption: str) -> str:
    """An interactive figure on the screen, and the same still where it is printed."""
    return (
        f'<figure><div class="screen-only">{live}</div><div class="print-only">{still}</div>'
        f"<noscript>{still}</noscript>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


# -- mathematics, which browsers set by themselves (MathML) --------------------------------------


def formula(*rows: str) -> str:
    """Display mathematics: MathML of one formula or of several on a line."""
    gap = '<mspace width="2em"/>'
    inner = gap.join(rows)
    return f'<div class="formula"><math display="block">{inner}</math></div>'


def symbol(name: str, sub: str = "", power: str = "") -> str:
    """A symbol with an index and a power."""
    base = f"<mi>{name}</mi>"
    if sub and power:
        return f"<msubsup>{base}<mi>{sub}</mi><mn>{power}</mn></msubsup>"
    if sub:
        return f"<msub>{base}<mi>{sub}</mi></msub>"
    return f"<msup>{base}<mn>{power}</mn></msup>" if power else base


def gaussian(variance: str) -> str:
    """A normal distribution around 0."""
    normal = "<mi mathvariant='normal'>N</mi>"
    return f"{normal}<mo>(</mo><mn>0</mn><mo>,</mo>{variance}<mo>)</mo>"


def fraction(top: str, bottom: str) -> str:
    """One above the other."""
    return f"<mfrac><mrow>{top}</mrow><mrow>{bottom}</mrow></mfrac>"
