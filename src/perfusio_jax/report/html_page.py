"""A report as one HTML page with everything inside: nothing is fetched, no script runs."""

import base64
import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from perfusio_jax._core import DataError
from perfusio_jax._core.text import shown
from perfusio_jax.twin.records.secrets import redact
from perfusio_jax.viz.theme import PALETTE, figure_bytes

from .document import (
    Block,
    Command,
    Document,
    Grid,
    Listing,
    Picture,
    SignatureLines,
    Words,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser may load for the page: pictures and looks that are in it."""

_NARROW: Final = 5
"""Columns that a small screen has room for; wider tables are moved sideways."""

_STYLE: Final = f"""
:root {{ color-scheme: light; }}
* {{ box-sizing: border-box; }}
body {{ font: 15px/1.5 "DejaVu Sans", Verdana, sans-serif; color: {PALETTE["ink"]};
  background: #fff; margin: 0 auto; max-width: 1120px; padding: 24px 20px 60px; }}
h1 {{ font-size: 1.6rem; line-height: 1.25; margin: 0 0 .8rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-top: .7rem;
  border-top: 2px solid {PALETTE["twin"]}; overflow-wrap: anywhere; }}
p, li, figcaption {{ max-width: 78ch; overflow-wrap: anywhere; }}
dl.facts {{ display: grid; grid-template-columns: minmax(9rem, max-content) 1fr; gap: .15rem 1.2rem;
  margin: 0 0 1.2rem; }}
dl.facts dt {{ color: {PALETTE["muted"]}; }}
dl.facts dd {{ margin: 0; overflow-wrap: anywhere; }}
nav ol {{ columns: 2; padding-left: 1.4rem; }}
nav a {{ color: #00507d; }}
.scroll {{ overflow-x: auto; margin: .6rem 0 1rem; }}
table {{ border-collapse: collapse; font-size: .84rem; line-height: 1.35; }}
th, td {{ text-align: left; vertical-align: top; padding: .32rem .7rem .32rem 0;
  border-bottom: 1px solid {PALETTE["grid"]}; max-width: 26rem; overflow-wrap: break-word; }}
th {{ color: #4c5560; font-weight: 600; border-bottom-color: {PALETTE["muted"]}; }}
.wide table {{ min-width: 54rem; }}
td.number, th.number {{ text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }}
figure {{ margin: 1rem 0 1.4rem; }}
figure div {{ overflow-x: auto; }}
figure img {{ max-width: 100%; min-width: 40rem; height: auto; }}
figcaption {{ font-size: .84rem; color: #4c5560; }}
code {{ font: .86rem/1.4 "DejaVu Sans Mono", monospace; background: {PALETTE["shade"]};
  padding: .1rem .35rem; overflow-wrap: anywhere; }}
p.command code {{ display: block; padding: .5rem .7rem; }}
p.warning {{ border-left: 4px solid {PALETTE["target"]}; padding-left: .8rem; }}
table.sign td {{ height: 2.6rem; min-width: 9rem; }}
@media (max-width: 560px) {{
  body {{ padding: 14px 12px 40px; font-size: 14px; }}
  nav ol {{ columns: 1; }}
  dl.facts {{ grid-template-columns: 1fr; }}
  dl.facts dd {{ margin-bottom: .4rem; }}
}}
@page {{ size: A4; margin: 17mm 15mm 19mm;
  @bottom-left {{ content: string(title); font: 8pt "DejaVu Sans", sans-serif; color: #4c5560; }}
  @bottom-right {{ content: "page " counter(page) " of " counter(pages);
    font: 8pt "DejaVu Sans", sans-serif; color: #4c5560; }} }}
@media print {{
  body {{ font-size: 9pt; padding: 0; max-width: none; }}
  h1 {{ string-set: title content(); }}
  h2 {{ break-after: avoid; }}
  nav ol {{ columns: 1; }}
  nav a {{ color: {PALETTE["ink"]}; text-decoration: none; }}
  nav a::after {{ content: leader(".") target-counter(attr(href), page); }}
  .scroll {{ overflow: visible; }}
  table {{ font-size: 7.2pt; width: 100%; }}
  th, td {{ padding-right: 5pt; }}
  tr, figure {{ break-inside: avoid; }}
  .wide table, figure img {{ min-width: 0; }}
  figure div {{ overflow: visible; }}
  figure img {{ max-height: 235mm; }}
}}
"""


def safe(text: str) -> str:
    """A text from anywhere as it may stand in a page: no markup, nothing secret, nothing obeyed."""
    return html.escape(shown(redact(str(text))), quote=True)


def html_page(document: Document, *, form: str = "svg") -> str:
    """A report as a page.

    Args:
        document: The report.
        form: Of pictures: "svg", or "png" for programs that draw SVG poorly.

    Returns:
        The page; the same report gives the same text.
    """
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{safe(document.title)}</title><style>{_STYLE}</style></head><body>",
        f"<header><h1>{safe(document.title)}</h1>",
        '<dl class="facts">',
        *(f"<dt>{safe(name)}</dt><dd>{safe(value)}</dd>" for name, value in document.facts),
        "</dl></header>",
        '<nav aria-label="Contents"><ol>',
        *(
            f'<li><a href="#s{n}">{safe(section.title)}</a></li>'
            for n, section in enumerate(document.sections, start=1)
        ),
        "</ol></nav><main>",
    ]
    for n, section in enumerate(document.sections, start=1):
        parts.append(f'<section><h2 id="s{n}">{n}. {safe(section.title)}</h2>')
        parts += [_block(block, form) for block in section.blocks]
        parts.append("</section>")
    parts.append("</main></body></html>\n")
    return "\n".join(parts)


def _block(block: Block, form: str) -> str:
    writers: dict[type, Callable[[Any, str], str]] = {
        Words: _words,
        Listing: _listing,
        Grid: _grid,
        Command: _command,
        Picture: _picture,
        SignatureLines: _signatures,
    }
    return writers[type(block)](block, form)


def _words(block: Words, form: str) -> str:
    kind = ' class="warning"' if block.is_warning else ""
    return f"<p{kind}>{safe(block.text)}</p>"


def _listing(block: Listing, form: str) -> str:
    return "<ul>" + "".join(f"<li>{safe(item)}</li>" for item in block.items) + "</ul>"


def _command(block: Command, form: str) -> str:
    return f'<p class="command"><code>{safe(block.text)}</code></p>'


def _grid(block: Grid, form: str) -> str:
    def cell(tag: str, k: int, text: str) -> str:
        kind = ' class="number"' if k in block.numeric else ""
        scope = ' scope="col"' if tag == "th" else ""
        return f"<{tag}{scope}{kind}>{safe(text)}</{tag}>"

    head = "".join(cell("th", k, text) for k, text in enumerate(block.heads))
    rows = (
        "<tr>" + "".join(cell("td", k, text) for k, text in enumerate(row)) + "</tr>"
        for row in block.rows
    )
    body = "\n".join(rows)
    kind = "scroll wide" if len(block.heads) > _NARROW else "scroll"
    return (
        f'<div class="{kind}" tabindex="0" role="region" aria-label="table"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _picture(block: Picture, form: str) -> str:
    try:
        figure = block.draw()
    except DataError as error:
        return f"<p>{safe(block.caption)}: not drawn. {safe(str(error))}</p>"
    return (
        f'<figure><div tabindex="0"><img alt="{safe(alt_of(figure))}" src="{_data(figure, form)}">'
        f"</div><figcaption>{safe(block.caption)}</figcaption></figure>"
    )


def alt_of(figure: "Figure") -> str:
    """What a figure shows, in words."""
    return str(figure.get_label() or "")


def _data(figure: "Figure", form: str) -> str:
    kind = "image/svg+xml" if form == "svg" else "image/png"
    content = base64.b64encode(figure_bytes(figure, form, dpi=150)).decode()
    return f"data:{kind};base64,{content}"


def _signatures(block: SignatureLines, form: str) -> str:
    rows = "".join(f"<tr><td>{safe(role)}</td>{'<td></td>' * 3}</tr>" for role in block.roles)
    heads = "".join(
        f'<th scope="col">{text}</th>' for text in ("Role", "Name", "Date", "Signature")
    )
    return f'<table class="sign"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
