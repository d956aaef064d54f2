"""Where pictures and files are to be asked for: the services' addresses, and the picture behind a page's address."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fetching.hosts import parts_of


@dataclass(frozen=True)
class Services:
    """The base address of each service, without a slash at its end."""

    snap_url: str = "http://snap.stanford.edu/data"
    deza_url: str = "https://raw.githubusercontent.com/ArturoDeza/virality/master"
    reddit_url: str = "https://www.reddit.com"
    imgur_url: str = "https://i.imgur.com"
    archive_url: str = "https://web.archive.org"


def direct_address(url: str, imgur_url: str) -> str | None:
    """The picture behind one of Imgur's pages (imgur.com/<id>, also in a gallery, .gifv, …); None for what is none."""
    host, path = parts_of(url)[1:3]
    match = re.fullmatch(r"/(?:gallery/|r/\w+/)?(\w{5,8})(?:\.gifv|\.html?)?/?", path)
    is_page = match and re.fullmatch(r"((www|m)\.)?imgur\.com", host.lower())
    is_film = path.endswith(".gifv") and host.lower() == "i.imgur.com"
    # Whatever the type of the picture, Imgur serves it under .jpg.
    return f"{imgur_url}/{match[1]}.jpg" if match and (is_page or is_film) else None


def post_address(post: str, reddit_url: str) -> str:
    """A Reddit post as JSON."""
    return f"{reddit_url}/comments/{post}.json?limit=1&raw_json=1"


def archived(url: str, archive_url: str) -> str:
    """The Internet Archive's copy nearest to 2015, when Deza & Parikh had the pictures, as it was served (`id_`)."""
    return f"{archive_url}/web/2015id_/{url}"
