# SPDX-License-Identifier: Apache-2.0
"""HTML from plain values: whatever is not `Html` already is escaped."""

import base64
import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

_SHORT = 32
_VOID = frozenset({"meta", "link", "img", "br", "source"})
# XML 1.0 and HTML have no such characters, escaped or not.
_CONTROL = {i: "\ufffd" for i in range(32) if chr(i) not in "\t\n\r"}


class Html(str):
    """Text that is HTML; any other text is escaped where it enters the page."""


def text(value: Any) -> Html:
    """Returns a value as HTML, escaped unless it is `Html`."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(plain(value)))


def plain(value: Any) -> str:
    """Returns a value as text without control characters or halves of pairs."""
    return str(value).translate(_CONTROL).encode("utf-8", "replace").decode()


def join(parts: Iterable[Any], between: str = "") -> Html:
    """Returns the parts one after the other, each escaped where it must be."""
    return Html(between.join(text(part) for part in parts if part is not None))


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """Returns an element; `class_="x"` is `class="x"`, `True` a bare attribute, `None` no child."""
    given = ""
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            given += f" {key}"
        elif value is not None and value is not False:
            given += f' {key}="{text(value)}"'
    body = "" if name in _VOID else f"{join(children)}</{name}>"
    return Html(f"<{name}{given}>{body}")


def data_uri(content: bytes, kind: str) -> str:
    """Returns bytes of a MIME type as a `data:` address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def table(caption: str, head: Sequence[Any], rows: Sequence[Sequence[Any]], label: int = 1) -> Html:
    """Returns a table that scrolls sideways by itself where it is too wide.

    Args:
      caption: what the table is, read out before it and shown above it.
      head: the headings of the columns.
      rows: the cells; short ones are not broken into lines.
      label: how many cells at the left of each row are headings of that row.
    """
    cells = [tag("th", h, scope="col") for h in head]
    body = [
        tag(
            "tr",
            *(_cell("th", c, scope="row") for c in r[:label]),
            *(_cell("td", c) for c in r[label:]),
        )
        for r in rows
    ]
    inner = tag("caption", caption), tag("thead", tag("tr", *cells)), tag("tbody", *body)
    whole = tag("table", *inner)
    # Reached by the keyboard too, as only a focused region scrolls with the arrow keys.
    return tag("div", whole, class_="wide", tabindex="0", role="region", aria_label=caption)


def _cell(name: str, content: Any, **attributes: Any) -> Html:
    long = len(re.sub("<[^>]*>", "", text(content))) > _SHORT
    return tag(name, content, class_="long" if long else None, **attributes)


def details(summary: Any, *children: Any, open: bool = False) -> Html:
    """Returns a part that folds; all of it is printed."""
    return tag("details", tag("summary", summary), *children, open=open)
