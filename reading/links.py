"""Links of Reddit posts → the addresses of the pictures behind them, from their form alone, without any request."""

from __future__ import annotations

import hashlib
from urllib.parse import unquote

import polars as pl

from reading.tables import whole_numbers

VIDEO, NO_PICTURE = "videos", "links to no picture"  # why a link has no address of a picture
_LONGEST = 2048  # letters of an address

_ENDING = r"(?:jpe?g|jpe|jfif|png|gif|webp|bmp|tiff?|avif|heic)"
# The most frequent links, which are addresses already.
_AS_IT_IS = (
    r"^https://i\.(?:redd\.it/[A-Za-z0-9_]+|imgur\.com/(?:[A-Za-z0-9]{7}|[A-Za-z0-9]{5}))\.(?:jpg|png|gif|jpeg|webp)$"
)
# All that follows is told without taking a link apart, which would take ten times as long.
_CLEAN = r"^https?://[!#$%(-;=?-~]+$"  # printable ASCII less " & ' < >
_SITE, _END = r"(?i)^https?://(?:[^/?#@]*@)?", r"(?::[0-9]*)?(?:[/?#]|$)"
_ADDRESS = _SITE + r"[^/?#@:.]+(?:\.[^/?#@:.]+)+(?::[0-9]*)?"
_FILE = _ADDRESS + rf"/[^?#]*\.{_ENDING}(?::[a-z]+)?/?(?:[?#]|$)"  # Twitter has .jpg:large
_PAGE_OF_FILE = r"^[^?#]*/wiki/"
_TWITTERS = _SITE + rf"pbs\.twimg\.com/[^?#]*\?[^#]*format={_ENDING}"
_SIGNED = _SITE + r"(?:i\.reddituploads\.com|external-preview\.redd\.it)/"  # whose query is part of the address
_FILM = _ADDRESS + r"/[^?#]*\.(?:gifv|mp4|webm|mov|avi|mkv|m4v|ogv|mpe?g)/?(?:[?#]|$)"
_FILMS = _SITE + (
    r"(?:[^/?#]*\.)?(?:v\.redd\.it|youtube\.com|youtube-nocookie\.com|youtu\.be|vimeo\.com|gfycat\.com|redgifs\.com|"
    r"streamable\.com|twitch\.tv|dailymotion\.com|tiktok\.com|liveleak\.com|vid\.me|vine\.co|streamja\.com)"
) + _END  # fmt: skip
_REDDITS = _SITE + r"(?:i|preview)\.redd\.it(?::[0-9]*)?/"
_REDDIT = _SITE + r"(?:[^/?#]*\.)?reddit\.com" + _END
_IMGUR = _SITE + r"(?:(?:www|m|i|old)\.)?imgur\.(?:com|io)" + _END
_IMGUR_ID = r"^(?:.*-)?([A-Za-z0-9]{5,8})(?:[^A-Za-z0-9].*)?$"
_IMGUR_WORDS = (
    "about account apps blog contact emerald gallery login memegen privacy random register removed rules search signin "
    "signup trending undefined upload vidgif"
).split()


def picture_addresses(links: pl.Series) -> pl.DataFrame:
    """The addresses of the pictures behind links (text; null: no link), and why there is none.

    Returns `address`, several separated by newlines, and `why`, VIDEO or NO_PICTURE: in each row one of them is null.
    Reddit's previews, whose signatures expire, become their originals, and Imgur's pages of pictures these pictures;
    an album of Imgur's, which holds an unknown number, stays the address of its page.
    """
    other = (~links.str.contains(_AS_IT_IS)).fill_null(True)
    frame = pl.DataFrame({"address": links, "why": pl.repeat(None, len(links), dtype=pl.String, eager=True)})
    if not other.any():
        return frame
    found, rows = _of_other_forms(_out_of_frames(_clean(links.filter(other)))), other.arg_true()
    return pl.DataFrame({name: _placed(frame[name], rows, found[name]) for name in frame.columns})


def img_ids(links: pl.Series) -> pl.Series:
    """The img_ids of pictures known only by their links: whole numbers below 2^53, the same for every form of an
    address and in every table, so that a picture keeps its number when a table grows."""
    found = picture_addresses(links)["address"].fill_null("")
    address = pl.col("address")
    plain = _without_case(address.str.replace("(?i)^https?://", ""))
    name = address.str.extract(r"/([A-Za-z0-9]+)(?:\.\w+)?$")
    imgurs = address.str.contains(r"^https://(?:i\.imgur\.com|imgur\.com/gallery)/")
    key = (
        pl.when(imgurs).then("i.imgur.com/" + name + "?")
        .when(address.str.starts_with("https://imgur.com/a/"))
        .then("imgur.com/ajaxalbums/getimages/" + name + "/hit.json?all=true")
        .when(plain.str.contains("?", literal=True)).then(plain)
        .otherwise(plain + "?")
    )  # fmt: skip
    keys = pl.DataFrame({"address": found.zip_with(found != "", links)}).select(key.fill_null(address)).to_series()
    numbers = {each: int.from_bytes(hashlib.sha256(each.encode()).digest()[:7]) >> 3 for each in keys.unique()}
    return keys.replace_strict(numbers, return_dtype=pl.Int64) if len(keys) else pl.Series([], dtype=pl.Int64)


def picture_ids(image_id: pl.Series, url: pl.Series, reddit_id: pl.Series) -> pl.DataFrame:
    """The picture of each row of a table of submissions (texts, empty if unknown): img_id, and the `link` to it.

    An image_id that is a whole number is the img_id; another is a name, for which a number stands. Without one the
    picture is known by its link: its address, or else the post (by its id alone); without either, each row is a picture
    of its own.
    """
    rows = pl.select(image_id=image_id, url=url, reddit_id=reddit_id).with_row_index("row")
    rows = rows.with_columns(link=pl.when(pl.col("url").str.strip_chars() != "").then("url").otherwise("reddit_id"))
    given = whole_numbers(rows["image_id"])
    given = pl.select(pl.when(pl.lit(given).is_between(0, 2**53 - 1)).then(given)).to_series()
    known_by = rows.filter(given.is_null()).select(
        pl.when(pl.col("image_id") != "").then("name:" + pl.col("image_id"))
        .when(pl.col("link") != "").then("link")
        .otherwise("row:" + pl.col("row").cast(pl.String))
    )  # fmt: skip
    numbers = given.scatter(given.is_null().arg_true(), img_ids(known_by.to_series())) if len(known_by) else given
    return rows.select("link", img_id=numbers)


def _without_case(plain: pl.Expr) -> pl.Expr:
    """Addresses without their scheme, the host in lower case, without a user and the usual port."""
    host = plain.str.extract("^([^/?#]*)").str.to_lowercase().str.replace("^.*@", "").str.replace("(?::|:80|:443)$", "")
    odd = plain.str.contains("^[^/?#]*[A-Z@:]")
    return pl.when(odd).then(host + plain.str.replace("^[^/?#]*", "")).otherwise(plain)


def _of_other_forms(links: pl.Series) -> pl.DataFrame:
    link = pl.col("link")
    is_file = link.str.contains(_FILE) & ~link.str.contains(_PAGE_OF_FILE)
    frame = pl.DataFrame({"link": links}).select(
        "link",
        form=pl.when(link.str.len_bytes() > _LONGEST).then(pl.lit("none"))
        .when(link.str.contains(_IMGUR)).then(pl.lit("imgur"))
        .when(link.str.contains(_REDDITS)).then(pl.lit("reddit"))
        .when(link.str.contains(_REDDIT)).then(pl.lit("none"))
        .when(is_file | link.str.contains(_SIGNED) | link.str.contains(_TWITTERS)).then(pl.lit("file"))
        .when(link.str.contains(_FILM) | link.str.contains(_FILMS)).then(pl.lit("film"))
        .otherwise(pl.lit("none")),
    )  # fmt: skip
    address = pl.repeat(None, len(links), dtype=pl.String, eager=True)
    for form, addresses in (("imgur", _of_imgur), ("reddit", _of_reddit), ("file", _without_fragment)):
        rows = (frame["form"] == form).arg_true()
        address = _placed(address, rows, addresses(links.gather(rows))) if len(rows) else address
    why = pl.when(pl.col("form") == "film").then(pl.lit(VIDEO)).otherwise(pl.lit(NO_PICTURE))
    return frame.select(address=address, why=pl.when(address.is_null()).then(why))


def _clean(links: pl.Series) -> pl.Series:
    """Links as written in a table or post → as a browser would request them."""
    odd = (~links.str.contains(_CLEAN)).fill_null(True)
    if not odd.any():
        return links
    found = (
        links.filter(odd).fill_null("").str.replace_all(r"[\x00-\x1f\x7f]", "").str.strip_chars(" \"'<>\u00a0\ufeff")
    )
    found = found.str.replace_many(["&amp;", " "], ["&", "%20"])
    found = found.zip_with(~found.str.starts_with("//"), "https:" + found)
    found = found.zip_with(found.str.contains("^[A-Za-z]+://"), "https://" + found)
    return _placed(links, odd.arg_true(), found)


def _without_fragment(links: pl.Series) -> pl.Series:
    return links.str.replace("#.*$", "")


def _of_reddit(links: pl.Series) -> pl.Series:
    """Reddit's own pictures and the previews of them: id and ending follow a title and -v0-, if there is one."""
    name = links.str.extract(r"/(?:[^/?#]*-v[0-9]+-)?([^/?#]+)(?:[?#].*)?$")
    is_file = name.str.contains(rf"(?i)\.{_ENDING}$")
    return pl.select(pl.when(is_file).then("https://i.redd.it/" + pl.lit(name))).to_series()


def _out_of_frames(links: pl.Series) -> pl.Series:
    """Reddit shows pictures in a frame of its own: reddit.com/media?url=…"""
    framed = links.str.extract(r"(?i)^https?://(?:\w+\.)?reddit\.com/media/?\?(?:[^#]*&)?url=([^&#]+)")
    rows = framed.is_not_null().arg_true()
    inner = pl.Series([unquote(each) for each in framed.gather(rows)], dtype=pl.String)
    return _placed(links, rows, inner)


def _of_imgur(links: pl.Series) -> pl.Series:
    """The addresses behind Imgur's pages and files; null if a link does not lead to a picture."""
    part = lambda text, mark, n, i: text.str.splitn(mark, n).struct.field(f"field_{i}")  # noqa: E731
    path = part(part(part(links, "/", 4, 3).fill_null(""), "?", 2, 0), "#", 2, 0).str.strip_chars("/")
    frame = pl.DataFrame({f"part_{i}": part(path, "/", 4, i) for i in range(3)}).with_row_index("row")
    first, segment = pl.col("part_0").str.to_lowercase(), pl.col("segment")
    frame = frame.select(
        "row",
        first=first,
        segment=pl.when(first.is_in(["gallery", "a", "download"])).then("part_1")
        .when(first.is_in(["t", "topic", "r"])).then("part_2")
        .when(first != "user").then("part_0"),
    )  # fmt: skip
    name, ending = pl.col("name"), pl.col("ending")
    frame = frame.select(
        "row", "first", name=part(segment, ".", 2, 0), ending=part(segment, ".", 2, 1).str.to_lowercase()
    )
    odd = frame["name"].str.contains("[^A-Za-z0-9]").fill_null(False)
    if odd.any():  # a title before the id, or several ids: imgur.com/abcde,fghij
        odds = frame.filter(odd).with_columns(name.str.replace_all("&|%2C", ",").str.split(",")).explode("name")
        frame = pl.concat([frame.filter(~odd), odds.with_columns(name.str.extract(_IMGUR_ID))])
    frame = frame.filter(name.str.len_bytes().is_between(5, 8) & ~name.str.to_lowercase().is_in(_IMGUR_WORDS))
    # A sixth or eighth letter of a file's name asks for a smaller size of the picture.
    small = ending.is_not_null() & name.str.contains("^.{5}(?:..)?[sbtmlh]$")
    whole = pl.when(small).then(name.str.head(-1)).otherwise(name)
    # Whatever the type of a picture, and for films their first frame, Imgur serves it under .jpg.
    ending = pl.when(ending.is_in(["png", "gif", "jpeg", "webp"])).then(ending).otherwise(pl.lit("jpg"))
    frame = frame.select(
        "row",
        address=pl.when(pl.col("first") == "a").then("https://imgur.com/a/" + name)
        .when(pl.col("first").is_in(["gallery", "t", "topic"])).then("https://imgur.com/gallery/" + name)
        .otherwise(pl.format("https://i.imgur.com/{}.{}", whole, ending)),
    )  # fmt: skip
    if odd.any():
        frame = frame.group_by("row", maintain_order=True).agg(
            pl.col("address").unique(maintain_order=True).str.join("\n")
        )
    return _placed(pl.repeat(None, len(links), dtype=pl.String, eager=True), frame["row"], frame["address"])


def _placed(column: pl.Series, rows: pl.Series, values: pl.Series) -> pl.Series:
    """The column with these rows set to these values."""
    return column.clone().scatter(rows, values) if len(rows) else column
