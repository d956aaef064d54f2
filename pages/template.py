"""Shared by all pages: style, content security policy, templates, pictures as data: URLs.

A page is a single file that needs no network: pictures, styles and scripts are inside. File names are shown literally,
whatever they contain: they are passed as JSON or escaped text, and each page's policy forbids the browser to run any
script but its own, or to load anything.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from pathlib import Path
from typing import Any

from PIL import Image

TEMPLATES = Path(__file__).resolve().parent


def fill_template(template: str, title: str, **fields: str) -> str:
    """Fill a template: `@@name@@` stands for a field. `title` is escaped here, the fields by those who made them."""
    text, style, theme = (
        (TEMPLATES / name).read_text(encoding="utf-8") for name in (template, "style.css", "theme.js")
    )
    text = text.replace("@@theme@@", theme.rstrip())
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL).group(1)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    policy += "; base-uri 'none'; form-action 'none'"
    fields |= {"title": escape(title), "style": style.rstrip(), "policy": policy}
    # In one pass: what a field holds is never taken for a field.
    return re.sub(r"@@(\w+)@@", lambda match: fields[match[1]], text)


def escape(text: Any) -> str:
    """Text for HTML, in or out of an attribute."""
    return html.escape(whole_text(text))


def whole_text(text: Any) -> str:
    """Text that can be encoded in UTF-8: invalid bytes of a file name, which Python keeps as surrogates, are marked."""
    return re.sub("[\ud800-\udfff]", "\ufffd", str(text))


def data_address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def thumbnail(picture: Image.Image, side: int = 240) -> str:
    """A JPEG of at most `side` pixels a side, as a data: address to embed in a page."""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    with io.BytesIO() as file:
        small.save(file, "JPEG", quality=80, optimize=True)
        return data_address(file.getvalue(), "image/jpeg")
