"""Contact sheets and self-contained HTML pages of pictures. Every text in them is escaped."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from .output import Table

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin:2.2rem 0 .3rem}p{margin:.4rem 0}
.row{display:flex;flex-wrap:wrap;gap:.6rem;margin:.6rem 0}figure{margin:0;width:min-content}
img{height:128px;width:auto;image-rendering:pixelated;border-radius:.3rem;display:block}
figcaption{font-size:.78rem;color:#555;overflow-wrap:anywhere}
table{border-collapse:collapse;display:block;overflow-x:auto;font-size:.85rem;margin:1rem 0}
th,td{padding:.2rem .6rem;text-align:left;border-bottom:1px solid #8884;white-space:nowrap}
img.wide{width:auto;height:auto;max-width:100%;image-rendering:auto;margin:.6rem 0}
code,pre{background:#f3f3f3;border-radius:.3rem;padding:.1rem .3rem;font-size:.9rem}pre{padding:.6rem;overflow:auto}
@media (prefers-color-scheme:dark){
body{color:#ddd;background:#181818}code,pre{background:#262626}figcaption{color:#aaa}}
"""


@dataclass(frozen=True)
class Strip:
    """Pictures in a row."""

    title: str
    note: str
    pictures: Sequence[tuple[Image.Image, str]]
    """With what stands under each."""


def page(
    title: str,
    opening: Sequence[str],
    strips: Sequence[Strip],
    commands: Sequence[str],
    *,
    tables: Sequence[Table] = (),
    figures: Sequence[tuple[str, Image.Image]] = (),
) -> str:
    """An HTML page that holds its pictures itself: one file to keep or to send. ``figures`` are shown large."""
    parts = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(line)}</p>" for line in opening)]
    parts += [_table(table) for table in tables]
    parts += [
        f'<img class="wide" alt="{html.escape(text, quote=True)}" src="{_data_url(image)}">'
        for text, image in figures
    ]
    for strip in strips:
        row = "".join(
            f'<figure><img alt="{html.escape(text, quote=True)}" src="{_data_url(image)}">'
            f"<figcaption>{html.escape(text)}</figcaption></figure>"
            for image, text in strip.pictures
        )
        parts += [
            f"<h2>{html.escape(strip.title)}</h2>",
            f"<p>{html.escape(strip.note)}</p>",
            f'<div class="row">{row}</div>',
        ]
    if commands:
        parts += ["<h2>What to try next</h2>", f"<pre>{html.escape(chr(10).join(commands))}</pre>"]
    view = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head = f"{view}<title>{html.escape(title)}</title>"
    body = "".join(parts)
    return f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{body}</body></html>\n'


def sheet(strips: Sequence[Strip], side: int = 128) -> Image.Image:
    """One picture of all strips, a labelled row each, every picture ``side`` pixels high."""
    gap, label = 6, 20
    width = gap + max(sum(_width(image, side) + gap for image, _ in strip.pictures) for strip in strips)
    row = label + side + 2 * gap
    canvas = Image.new("RGB", (width, row * len(strips) + gap), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(13)
    for number, strip in enumerate(strips):
        top = gap + number * row
        draw.text((gap, top), strip.title, fill=(30, 30, 30), font=font)
        left = gap
        for image, _ in strip.pictures:
            scaled = image.convert("RGB").resize((_width(image, side), side), _resampling(image, side))
            canvas.paste(scaled, (left, top + label))
            left += scaled.width + gap
    return canvas


def _width(image: Image.Image, side: int) -> int:
    """Of an image made ``side`` high."""
    return max(round(side * image.width / image.height), 1)


def _table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{row(table.columns, 'th')}{''.join(row(cells, 'td') for cells in table.rows)}</table>"


def _resampling(image: Image.Image, side: int) -> Image.Resampling:
    # Small pictures are shown as they are, in whole pixels: smoothing would flatter them.
    return Image.Resampling.NEAREST if image.height < side else Image.Resampling.LANCZOS


def _data_url(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
