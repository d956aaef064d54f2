"""What picture is behind a link, by its form alone."""

from __future__ import annotations

import polars as pl
import pytest

from reading.links import NO_PICTURE, VIDEO, img_ids, picture_addresses

IMGUR, REDDIT = "https://i.imgur.com/", "https://i.redd.it/"
ADDRESSES = {
    # Reddit's
    f"{REDDIT}abc123.jpg": f"{REDDIT}abc123.jpg",
    "http://i.redd.it/abc123.png?x=1#y": f"{REDDIT}abc123.png",
    "https://preview.redd.it/x1y2z3.jpg?width=640&amp;crop=smart&amp;s=abc": f"{REDDIT}x1y2z3.jpg",
    "https://preview.redd.it/some-title-v0-x1y2z3.png?s=1": f"{REDDIT}x1y2z3.png",
    "https://external-preview.redd.it/HASH.jpg?auto=webp&amp;s=1#x": "https://external-preview.redd.it/HASH.jpg?auto=webp&s=1",
    "https://i.reddituploads.com/abc?fit=max&amp;s=1": "https://i.reddituploads.com/abc?fit=max&s=1",
    "https://www.reddit.com/media?url=https%3A%2F%2Fi.redd.it%2Fxyz.jpg": f"{REDDIT}xyz.jpg",
    # Imgur's
    "http://i.imgur.com/abcdefg.PNG?1": f"{IMGUR}abcdefg.png",
    "https://imgur.com/abcdefg": f"{IMGUR}abcdefg.jpg",
    "https://imgur.com/AbCdEfG.jpg": f"{IMGUR}AbCdEfG.jpg",
    "https://i.imgur.com/abcdefg.gifv": f"{IMGUR}abcdefg.jpg",
    "https://i.imgur.com/abcdefg.mp4": f"{IMGUR}abcdefg.jpg",
    "https://i.imgur.com/abcdefg": f"{IMGUR}abcdefg.jpg",
    "https://i.imgur.com/abcdefgl.jpg": f"{IMGUR}abcdefg.jpg",
    "https://i.imgur.com/abcdes.jpg": f"{IMGUR}abcde.jpg",
    "https://imgur.com/r/aww/AbCdEfG": f"{IMGUR}AbCdEfG.jpg",
    "https://imgur.com/AbCdEfG/new": f"{IMGUR}AbCdEfG.jpg",
    "https://imgur.com/a-title-AbCdEfG": f"{IMGUR}AbCdEfG.jpg",
    "http://imgur.com/abcde,fghij": f"{IMGUR}abcde.jpg\n{IMGUR}fghij.jpg",
    "imgur.com/a/AbCdE": "https://imgur.com/a/AbCdE",
    "https://imgur.com/gallery/my-title-AbCdEfG": "https://imgur.com/gallery/AbCdEfG",
    "https://m.imgur.com/t/cats/AbCdEfG": "https://imgur.com/gallery/AbCdEfG",
    "HTTPS://user:p@I.IMGUR.COM:443/AbCdEfG.jpg": f"{IMGUR}AbCdEfG.jpg",
    "//i.imgur.com/AbCdEfG.jpg": f"{IMGUR}AbCdEfG.jpg",
    # files elsewhere
    " https://example.org/a b.JPG#top\n": "https://example.org/a%20b.JPG",
    "http://127.0.0.1:8000/x.webp?v=2": "http://127.0.0.1:8000/x.webp?v=2",
    "https://pbs.twimg.com/media/A.jpg:large": "https://pbs.twimg.com/media/A.jpg:large",
    "https://pbs.twimg.com/media/A?format=jpg&amp;name=large": "https://pbs.twimg.com/media/A?format=jpg&name=large",
    "https://giant.gfycat.com/X.gif": "https://giant.gfycat.com/X.gif",
}
NONE = {
    "https://v.redd.it/abc": VIDEO,
    "https://www.youtube.com/watch?v=1": VIDEO,
    "https://youtu.be/1": VIDEO,
    "https://gfycat.com/X": VIDEO,
    "https://example.org/x.mp4?t=1": VIDEO,
    "https://imgur.com/": NO_PICTURE,
    "https://imgur.com/upload": NO_PICTURE,
    "https://imgur.com/user/somebody": NO_PICTURE,
    "https://i.redd.it/": NO_PICTURE,
    "https://en.wikipedia.org/wiki/File:x.jpg": NO_PICTURE,
    "https://www.reddit.com/r/pics/comments/1/a.jpg": NO_PICTURE,
    "https://example.org/story.html?x=a.jpg": NO_PICTURE,
    "https://notimgur.com/abcdefg": NO_PICTURE,
    "https://youtube.com.example.org/": NO_PICTURE,
    "javascript:alert(1)//x.jpg": NO_PICTURE,
    "data:image/png;base64,xx": NO_PICTURE,
    "ftp://example.org/a.jpg": NO_PICTURE,
    "https://x.org/" + "a" * 3000 + ".jpg": NO_PICTURE,
    "": NO_PICTURE,
    None: NO_PICTURE,
}


@pytest.mark.parametrize("link", ADDRESSES)
def test_the_address_behind_a_link(link):
    assert picture_addresses(pl.Series([link])).rows() == [(ADDRESSES[link], None)]


@pytest.mark.parametrize("link", NONE)
def test_a_link_without_a_picture_says_what_it_is(link):
    assert picture_addresses(pl.Series([link], dtype=pl.String)).rows() == [(None, NONE[link])]


def test_many_links_at_once_are_told_as_one_by_one():
    links = [*ADDRESSES, *NONE] * 3
    expected = [(ADDRESSES.get(link), NONE.get(link)) for link in links]
    assert picture_addresses(pl.Series(links)).rows() == expected
    assert picture_addresses(pl.Series([], dtype=pl.String)).is_empty()


def test_a_picture_has_one_number_under_all_its_addresses():
    same = [
        f"{IMGUR}AbCdEfG.jpg",
        "http://imgur.com/AbCdEfG",
        f"{IMGUR}AbCdEfG.png?1",
        "https://m.imgur.com/r/aww/AbCdEfG",
    ]
    other = [
        f"{REDDIT}abc.jpg",
        "https://example.org/a.jpg",
        "https://example.org/a.jpg?v=2",
        "https://imgur.com/a/AbCdEfG",
    ]
    numbers = img_ids(pl.Series([*same, *other, "not an address"])).to_list()
    assert len(set(numbers[:4])) == 1 and len(set(numbers)) == 6 and all(0 <= each < 2**53 for each in numbers)
    assert img_ids(pl.Series(["https://preview.redd.it/words-v0-abc.jpg?s=1"])).to_list() == numbers[4:5]
    assert img_ids(pl.Series([], dtype=pl.String)).is_empty()
