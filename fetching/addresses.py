"""The hosts of pictures: the addresses behind each form of link, and their placeholders for removed pictures."""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from urllib.parse import parse_qs

from fetching.hosts import parts_of


@dataclass(frozen=True)
class Services:
    """The base address of each service, without a slash at its end."""

    snap_url: str = "http://snap.stanford.edu/data"
    deza_url: str = "https://raw.githubusercontent.com/ArturoDeza/virality/master"
    reddit_url: str = "https://www.reddit.com"
    redd_url: str = "https://i.redd.it"
    preview_url: str = "https://preview.redd.it"
    imgur_url: str = "https://i.imgur.com"
    album_url: str = "https://imgur.com"
    archive_url: str = "https://web.archive.org"


Address = tuple[str, str]  # what it is (link, imgur, album, original, post, archive …) and where

_IMGUR = re.compile(r"((www|m|i|old)\.)?imgur\.(com|io)(:\d+)?")
_PICTURE = re.compile(r"(jpe?g|png|gif|webp|bmp|tiff?|avif|jfif)", re.IGNORECASE)
# Where the id stands in the path of each kind of page; elsewhere it comes first.
_PLACES = {"gallery": 1, "a": 1, "download": 1, "t": 2, "topic": 2, "r": 2, "user": 3}
_NOT_IDS = set("about account apps blog contact emerald gallery login memegen privacy random register removed "
               "rules search signin signup trending undefined upload vidgif".split())  # fmt: skip

# What is served in place of a removed picture.
PLACEHOLDERS = {"d835884373f4d6c8f24742ceabe74946"}  # MD5 of Imgur's
IMGUR_SIZE, REDDIT_SIZE = (161, 81), (130, 60)  # PNGs, in pixels


def clean(link: str) -> str:
    """A link as a table or a post has it → an address: without what surrounds it, as a browser would take it."""
    link = re.sub(r"[\t\r\n]", "", link).strip(" \"'<>\u00a0\ufeff").replace("&amp;", "&")
    before, mark, after = re.match(r"([^?#]*)([?#]?)(.*)", link, re.DOTALL).groups()
    link = before.replace("\\", "/") + mark + after
    if link.startswith("//"):
        link = f"http:{link}"
    elif re.match(r"([a-z0-9-]+\.)+[a-z0-9-]+(:\d+)?/", link, re.IGNORECASE):
        link = f"http://{link}"
    return link


def addresses_of(link: str, services: Services) -> list[Address]:
    """The addresses to try for the picture of a link, the best first; none if there is no link."""
    link = clean(link)
    if not link:
        return []
    host, path = parts_of(link)[1:3]
    host = host.lower().rpartition("@")[2]
    if _IMGUR.fullmatch(host):
        return _of_imgur(link, services)
    if host in ("preview.redd.it", "i.redd.it"):
        return _of_redd_it(link, services)
    if re.fullmatch(r"(\w+\.)?reddit\.com|redd\.it", host):
        return _of_reddit(link, services)
    return [("link", link)]


def _of_imgur(link: str, services: Services) -> list[Address]:
    host, path, query = parts_of(link)[1:4]
    segments = [segment for segment in path.split("/") if segment]
    if host.lower().startswith("i.") and len(segments) == 1 and _PICTURE.fullmatch(path.rpartition(".")[2]):
        return [("link", f"{services.imgur_url}/{segments[0]}" + (f"?{query}" if query else ""))]
    first = segments[0].lower() if segments else ""
    found = []
    if (direct := direct_address(link, services.imgur_url)) is not None:
        found.append(("imgur", direct))
    if first in ("a", "gallery", "t", "topic"):  # what these show may be an album as well
        name = _id_of(segments[_PLACES[first]]) if len(segments) > _PLACES[first] else ""
        if name:
            found.append(("album", f"{services.album_url}/ajaxalbums/getimages/{name}/hit.json?all=true"))
    return found or [("link", link)]


def direct_address(url: str, imgur_url: str) -> str | None:
    """The picture behind one of Imgur's pages: imgur.com/<id>, also with a title before or `new` after the id, in a
    gallery, a topic or a subreddit, as a film, without a suffix. None for what is none of them, or a picture itself."""
    host, path = parts_of(url)[1:3]
    segments = [segment for segment in path.split("/") if segment]
    if not _IMGUR.fullmatch(host.lower()) or not segments or segments[0].lower() == "a":
        return None
    place = _PLACES.get(segments[0].lower(), 0)
    name = _id_of(segments[place]) if len(segments) > place else ""
    suffix = segments[-1].rpartition(".")[2] if "." in segments[-1] else ""
    if host.lower().startswith("i.") and _PICTURE.fullmatch(suffix):
        return None
    # Whatever the type of the picture, Imgur serves it under .jpg.
    return f"{imgur_url}/{name}.jpg" if name else None


def _id_of(segment: str) -> str:
    """The id in a part of one of Imgur's paths, which may hold a title before it and a suffix, or a further id, after
    it; '' if there is none."""
    match = re.match(r"(?:.*-)?([A-Za-z0-9]{5,8})(?![A-Za-z0-9])", segment)
    return match[1] if match and match[1].lower() not in _NOT_IDS else ""


def _of_redd_it(link: str, services: Services) -> list[Address]:
    """A preview is asked for as its original, which needs no signature; then as it is, whose signature may expire."""
    host, path, query = parts_of(link)[1:4]
    name = path.rpartition("/")[2]
    original = f"{services.redd_url}/{re.sub(r'^.*-v[0-9]+-', '', name)}"
    if host.lower() == "i.redd.it":
        return [("link", f"{services.redd_url}{path}" + (f"?{query}" if query else ""))]
    preview = f"{services.preview_url}{path}" + (f"?{query}" if query else "")
    return [("original", original), ("link", preview)]


def _of_reddit(link: str, services: Services) -> list[Address]:
    """One of Reddit's own pages: a picture in a frame, a gallery or a post."""
    host, path, query = parts_of(link)[1:4]
    framed = parse_qs(query).get("url", [""])[0]
    if path.rstrip("/") == "/media" and framed and "reddit.com/media" not in framed:
        return addresses_of(framed, services)
    before = "^" if host.lower() == "redd.it" else "/gallery|/comments"
    match = re.search(rf"(?:{before})/([a-z0-9]{{4,10}})(?:/|$)", path, re.IGNORECASE)
    return [("post", post_address(match[1].lower(), services.reddit_url))] if match else [("link", link)]


def post_address(post: str, reddit_url: str) -> str:
    """A Reddit post as JSON."""
    return f"{reddit_url}/comments/{post}.json?limit=1&raw_json=1"


def archived(addresses: list[Address], archive_url: str) -> Address | None:
    """The Internet Archive's copy of the first of these that is a picture's, nearest to 2015, when Deza & Parikh had
    the pictures, as it was served (`id_`)."""
    urls = [url for source, url in addresses if source not in ("post", "album")]
    return ("archive", f"{archive_url}/web/2015id_/{urls[0]}") if urls else None


# --- what stands in for a removed picture ---------------------------------------------------------------------------
def stands_in(data: bytes, url: str, services: Services) -> str:
    """The host whose placeholder for removed pictures `data` is, if it came from `url`; otherwise ''."""
    size = png_size(data)
    if size is None:
        return ""
    if len(data) < 2**12 and hashlib.md5(data, usedforsecurity=False).hexdigest() in PLACEHOLDERS:
        return "Imgur"
    host = parts_of(url).netloc.lower()
    own = lambda base: host == parts_of(base).netloc.lower()  # noqa: E731
    if size == IMGUR_SIZE and (_IMGUR.fullmatch(host) or own(services.imgur_url)):
        return "Imgur"
    reddits = re.fullmatch(r"(\w|-)+\.(redd\.it|redditmedia\.com|reddituploads\.com)", host)
    if size == REDDIT_SIZE and (reddits or own(services.redd_url) or own(services.preview_url)):
        return "Reddit"
    return ""


def png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG by its header."""
    return struct.unpack(">II", data[16:24]) if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24 else None
