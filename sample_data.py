"""Generate a sample community: pictures whose virality has a known cause, and the submissions they would get.

    python sample_data.py --output data/sample [--num_images 600] [--seed 0]         a few seconds, no network
    python sample_data.py --output data/own --num_images 400 --as_dump               as a Reddit dump, in dump/
    python sample_data.py --output data/hard --decoys --grounds PHOTOS               harder to localise

The generative model
  latent     z ~ uniform(0, 1) for each picture, independent of everything else: how viral the picture is.
  subreddit  one of funny, WTF, aww, atheism, gaming, uniformly. Each has a style of its own: background and palette.
  picture    160 to 320 pixels a side, JPEG. The subreddit's background is covered with clutter: plain discs, boxes,
             triangles and strokes of random colour, place and size. On top of it is one *cue*.
  cue        a badge at a random place, 0.20 to 0.34 of the picture's shorter side: a black rim, a white ring and a core
             whose colour changes with z from blue through green and yellow to red. Only the badge has a ring; its
             colours also occur in the clutter, so that the colour histogram of a picture says little about z.
  resubmissions   m ~ round(exp(0.9 + 3 z + N(0, 0.1))), at least 1: the latent determines how often people pass it on.
             Two thirds go to the picture's own subreddit, the others to one of the other four, to pics, or to offbeat
             (which is not among the twenty that count). Hours follow a daily cycle.
  votes      score = community's mean × hour's mean × exp(N(0, 0.12)), minus up to three downvotes. The latent does
             not affect the votes of one submission; since V's logarithm is negative below the mean m, its effect
             could not be uniform.
  malformed  five consecutive lines with too many fields, as in the real file.

--decoys makes it harder to tell where to look: each picture contains one or two *decoys*, the rim and ring of a badge
with a white interior in place of the core; and one in ten pictures has no badge: its latent is 0.5. --grounds FOLDER
uses the photographs of a folder as backgrounds, cropped to the picture's size; the community is then not visible.

The noise ceiling is the share of pairs of pictures that the true latent puts in the order of the virality score: the
accuracy of a ranker that reads the cue without error. `noise_ceiling` computes it from truth.csv and data_set_iv.csv.

Writes redditSubmissions.csv.gz in SNAP's format, images/<img_id>.jpg, datasets/truth.csv (img_id, latent, and the cue's
box x,y,w,h in pixels, empty without a badge), and sample.json with the settings. With --as_dump it writes only the
dump, its pictures and its truth (described in sample_dump.py); there m ~ round(exp(0.1 + 2.1 z + N(0, 0.1))), about
four posts per picture.
"""

from __future__ import annotations

import argparse
import colorsys
import csv
import gzip
import io
import itertools
import math
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from sample_dump import write_dump
from utils import UserError, print_configuration, run_main, write_csv, write_json, written_whole
from virality import SNAP_COLUMNS

SUBREDDITS = ("funny", "WTF", "aww", "atheism", "gaming")
# Mean score of a submission to each community, and where submissions beyond a picture's own community go.
MEAN_SCORE = {"funny": 420, "WTF": 310, "aww": 260, "atheism": 180, "gaming": 240, "pics": 380, "offbeat": 40}
ELSEWHERE = (*SUBREDDITS, "pics", "offbeat")
FIRST_MIDNIGHT = 1_325_376_000  # 2012-01-01, seconds since 1970
MALFORMED_LINES = 5
WITHOUT_BADGE = 0.1  # share of the pictures, where there are decoys
# Their latent: at either end of the scale a badge would say no more than its absence, and need not be found.
NO_BADGE = 0.5

Colour = tuple[int, int, int]


# --- pictures -------------------------------------------------------------------------------------------------------
def draw_picture(
    rng: np.random.Generator,
    subreddit: str,
    latent: float | None,
    decoys: bool = False,
    photograph: Image.Image | None = None,
) -> tuple[Image.Image, tuple[int, ...] | None]:
    """One picture in the style of `subreddit`, or on a photograph, with a cue for `latent` (0 to 1; None: no cue).

    Returns it with the cue's box x, y, w, h in pixels.
    """
    width, height = (int(side) for side in rng.integers(160, 321, size=2))
    image = GROUNDS[subreddit](rng, width, height) if photograph is None else ImageOps.fit(photograph, (width, height))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(5, 10))):
        _draw_clutter(draw, rng, width, height)
    for _ in range(int(rng.integers(1, 3)) if decoys else 0):
        _draw_cue(draw, *_place(rng, width, height), None)
    if latent is None:
        return image, None
    left, top, side = _place(rng, width, height)
    _draw_cue(draw, left, top, side, latent)
    return image, (left, top, side, side)


def _place(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int]:
    """Left, top and side of a badge, in pixels."""
    side = int(round(rng.uniform(0.20, 0.34) * min(width, height)))
    return int(rng.integers(0, width - side)), int(rng.integers(0, height - side)), side


def cue_colour(latent: float) -> Colour:
    """From blue (0) through green and yellow to red (1), at full saturation."""
    return _rgb((1 - latent) * 0.66, 0.95, 0.95)


def _draw_cue(draw: ImageDraw.ImageDraw, left: int, top: int, side: int, latent: float | None) -> None:
    """A badge, or with latent None a decoy: rim and ring alone."""
    core = [] if latent is None else [(0.20, cue_colour(latent))]
    for inset, colour in ((0, (0, 0, 0)), (0.08, (255, 255, 255)), *core):
        gap = inset * side
        draw.ellipse((left + gap, top + gap, left + side - 1 - gap, top + side - 1 - gap), fill=colour)


def _draw_clutter(draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    side = rng.uniform(0.08, 0.28) * min(width, height)
    x, y = rng.uniform(-0.2 * side, width - 0.8 * side), rng.uniform(-0.2 * side, height - 0.8 * side)
    colour = _rgb(rng.uniform(), rng.uniform(0.3, 1), rng.uniform(0.4, 1))
    shape = rng.integers(4)
    if shape == 0:
        draw.ellipse((x, y, x + side, y + side), fill=colour)
    elif shape == 1:
        draw.rectangle((x, y, x + side, y + side * rng.uniform(0.4, 1)), fill=colour)
    elif shape == 2:
        draw.polygon([(x, y + side), (x + side / 2, y), (x + side, y + side)], fill=colour)
    else:
        draw.line((x, y, x + side, y + side * rng.uniform(-1, 1)), fill=colour, width=max(2, int(side / 8)))


def _ground_funny(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Bright sunburst rays from one point."""
    image = Image.new("RGB", (width, height), _rgb(rng.uniform(0.10, 0.18), 0.45, 1.0))
    draw = ImageDraw.Draw(image)
    centre, reach = (rng.uniform(0, width), rng.uniform(0, height)), width + height
    colour, rays = _rgb(rng.uniform(0.10, 0.18), 0.75, 0.95), int(rng.integers(7, 12))
    for ray in range(rays):
        angles = (2 * math.pi * ray / rays, 2 * math.pi * (ray + 0.5) / rays)
        draw.polygon(
            [centre, *((centre[0] + reach * math.cos(a), centre[1] + reach * math.sin(a)) for a in angles)], colour
        )
    return image


def _ground_wtf(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Near black, with jagged red lines."""
    image = Image.new("RGB", (width, height), _rgb(rng.uniform(0.9, 1), 0.5, rng.uniform(0.08, 0.2)))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(10, 18))):
        xs = np.linspace(0, width, 9)
        ys = rng.uniform(0, height) + rng.normal(0, height * 0.06, 9)
        draw.line(
            list(zip(xs, ys, strict=True)), fill=_rgb(rng.uniform(0.94, 1.02) % 1, 0.9, rng.uniform(0.3, 0.7)), width=2
        )
    return image


def _ground_aww(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Soft pink and peach blobs, out of focus."""
    image = Image.new("RGB", (width, height), _rgb(rng.uniform(0.92, 1.0), 0.18, 1.0))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(12, 20))):
        x, y, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.08, 0.22) * width
        colour = _rgb(rng.uniform(0.90, 1.06) % 1, rng.uniform(0.15, 0.5), 1.0)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return image.filter(ImageFilter.GaussianBlur(6))


def _ground_atheism(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A pale page with rows of grey words."""
    image = Image.new("RGB", (width, height), _rgb(0.6, 0.06, rng.uniform(0.85, 0.97)))
    draw = ImageDraw.Draw(image)
    row, grey = int(rng.integers(9, 15)), int(rng.integers(60, 130))
    for y in range(row // 2, height, row):
        x = rng.uniform(2, 12)
        while x < width * rng.uniform(0.75, 1):
            word = rng.uniform(8, 34)
            draw.rectangle((x, y, x + word, y + row * 0.45), fill=(grey, grey, grey + 10))
            x += word + 5
    return image


def _ground_gaming(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A coarse grid of green and teal blocks."""
    cells = (int(rng.integers(8, 13)), int(rng.integers(8, 13)))
    small = np.zeros((cells[1], cells[0], 3), np.uint8)
    for y in range(cells[1]):
        for x in range(cells[0]):
            small[y, x] = _rgb(rng.uniform(0.28, 0.52), rng.uniform(0.4, 0.8), rng.uniform(0.25, 0.65))
    return Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST)


GROUNDS = {
    "funny": _ground_funny,
    "WTF": _ground_wtf,
    "aww": _ground_aww,
    "atheism": _ground_atheism,
    "gaming": _ground_gaming,
}


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return int(red * 255), int(green * 255), int(blue * 255)


# --- submissions ----------------------------------------------------------------------------------------------------
def draw_submissions(
    rng: np.random.Generator, image_id: int, subreddit: str, latent: float, rate: tuple[float, float] = (0.9, 3.0)
) -> list[list[str]]:
    """The submissions of one picture, as lines in SNAP's columns. The first goes to the picture's own subreddit.

    `rate` is the logarithm of their number at latent 0, and its slope in the latent.
    """
    times = max(1, round(math.exp(rate[0] + rate[1] * latent + rng.normal(0, 0.10))))
    lines = []
    for nth in range(times):
        community = subreddit if nth == 0 or rng.random() < 2 / 3 else str(rng.choice(ELSEWHERE))
        hour = int(rng.choice(24, p=_HOUR_SHARE))
        seconds = hour * 3600 + int(rng.integers(3600))
        local = FIRST_MIDNIGHT + int(rng.integers(330)) * 86400 + seconds
        expected = MEAN_SCORE[community] * _HOUR_MEAN[hour] * math.exp(rng.normal(0, 0.12))
        downvotes = int(rng.integers(0, 4))
        upvotes = round(expected)
        raw = datetime.fromtimestamp(local, UTC).strftime("%Y-%m-%dT%H:%M:%S-08:00")
        title = f"picture {image_id}, again" if nth else f"picture {image_id}"
        post = f"s{image_id:x}n{nth:x}"
        comments = rng.poisson(1 + upvotes / 20)
        line = [image_id, local + 8 * 3600, raw, title, upvotes + downvotes, post, upvotes, community, downvotes, local]
        lines.append([str(field) for field in [*line, upvotes - downvotes, comments, f"user{rng.integers(900)}"]])
    return lines


# More submissions, and higher scores, in the afternoon and evening than in the small hours.
_HOUR_SHARE = 1.2 + np.cos((np.arange(24) - 17) / 24 * 2 * np.pi)
_HOUR_SHARE = _HOUR_SHARE / _HOUR_SHARE.sum()
_HOUR_MEAN = 1 + 0.5 * np.cos((np.arange(24) - 18) / 24 * 2 * np.pi)


def _malformed(rng: np.random.Generator, line: list[str]) -> list[str]:
    """A line whose title was split at its commas: too many fields."""
    return [*line[:3], *[f"word{i}" for i in range(int(rng.integers(2, 9)))], *line[3:]]


# --- the community --------------------------------------------------------------------------------------------------
class Drawn(NamedTuple):
    """A picture of the community, and what made it."""

    subreddit: str
    latent: float
    image: Image.Image
    box: tuple[int, ...] | None  # x, y, w, h of its badge in pixels


def draw_pictures(
    rng: np.random.Generator, num_images: int, decoys: bool = False, grounds: str | Path | None = None
) -> Iterator[Drawn]:
    """The pictures one by one. Of the generator's draws those of a picture come before what its reader takes next."""
    photographs = read_photographs(grounds, rng) if grounds else itertools.repeat(None)
    for photograph in itertools.islice(photographs, num_images):
        subreddit, latent = str(rng.choice(SUBREDDITS)), float(rng.uniform())
        badge = not decoys or rng.uniform() >= WITHOUT_BADGE
        yield Drawn(
            subreddit,
            latent if badge else NO_BADGE,
            *draw_picture(rng, subreddit, latent if badge else None, decoys, photograph),
        )


def read_photographs(folder: str | Path, rng: np.random.Generator) -> Iterator[Image.Image]:
    """The pictures of a folder, in random order, repeated endlessly. Raises UserError if none can be read."""
    from decoding.decoder import UnusablePicture  # torch, which they import, takes seconds to start
    from pictures.sources import list_sources, read

    sources = list(list_sources(folder))
    while True:
        usable = 0
        for place in rng.permutation(len(sources)):
            try:
                photograph = read(sources[place])
            except UnusablePicture:
                continue
            usable += 1
            yield photograph
        if not usable:
            raise UserError(f"--grounds {folder}: none of its {len(sources)} pictures can be read")


def make_sample(
    output: str | Path,
    num_images: int = 600,
    seed: int = 0,
    decoys: bool = False,
    grounds: str | Path | None = None,
) -> None:
    """Draw the whole community into the folder `output` (see the module's docstring)."""
    output, rng = Path(output), np.random.default_rng(seed)
    truth, lines = [], []
    for img_id, drawn in enumerate(draw_pictures(rng, num_images, decoys, grounds), start=1):
        (output / "images").mkdir(parents=True, exist_ok=True)
        (output / "sample.json").unlink(missing_ok=True)  # written last: with it the sample is whole
        with written_whole(output / "images" / f"{img_id}.jpg") as beside:
            drawn.image.save(beside, format="JPEG", quality=88)
        truth.append((img_id, round(drawn.latent, 6), *(drawn.box or [None] * 4)))
        lines += draw_submissions(rng, img_id - 1, drawn.subreddit, drawn.latent)
    middle = len(lines) // 2
    lines[middle:middle] = [_malformed(rng, line) for line in lines[:MALFORMED_LINES]]
    table = pd.DataFrame(truth, columns=["img_id", "latent", "x", "y", "w", "h"])
    write_csv(output / "datasets" / "truth.csv", table.astype(dict.fromkeys("xywh", "Int64")))
    _write_submissions(output / "redditSubmissions.csv.gz", lines)
    about = {"num_images": num_images, "seed": seed, "submissions": len(lines)}
    harder = {"decoys": decoys, "grounds": None if grounds is None else Path(grounds).name}
    write_json(output / "sample.json", about | harder)


def make_dump(
    output: str | Path,
    num_images: int,
    seed: int,
    base_url: str,
    decoys: bool = False,
    grounds: str | Path | None = None,
) -> dict[str, object]:
    """Draw a community into `output`/dump (see sample_dump.py) and return its truth. Other files are at `base_url`."""
    output, rng = Path(output), np.random.default_rng(seed)
    pictures, lines = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for image_id, drawn in enumerate(draw_pictures(rng, num_images, decoys, grounds)):
            pictures[image_id] = Path(folder) / f"{image_id}.jpg"
            drawn.image.save(pictures[image_id], quality=88)
            lines += draw_submissions(rng, image_id, drawn.subreddit, drawn.latent, rate=(0.1, 2.1))
        return write_dump(output / "dump", pictures, lines, seed, base_url)


def _write_submissions(path: Path, lines: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([SNAP_COLUMNS, *lines])
    with (
        written_whole(path) as beside,
        open(beside, "wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as zipped,
    ):
        zipped.write(text.getvalue().encode())


def noise_ceiling(latent: np.ndarray, v_score: np.ndarray) -> float:
    """Share (0 to 1) of the pairs with unequal V, over all pairs of images, that the true latent puts in V's order."""
    above = latent[:, None] > latent[None, :]
    v_above = v_score[:, None] > v_score[None, :]
    return float((above & v_above).sum() / v_above.sum())


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="data/sample", metavar="FOLDER")
    parser.add_argument("--num_images", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--as_dump", action="store_true", help="write the community as a Reddit dump, with its truth")
    parser.add_argument("--decoys", action="store_true", help="badges without a core, and pictures without a badge")
    parser.add_argument("--grounds", metavar="FOLDER", help="photographs to use as backgrounds")
    parser.add_argument(
        "--base_url", default="https://pictures.example.org", help="base address of the dump's other files"
    )
    args = parser.parse_args()
    if args.num_images < 10:
        raise UserError(f"--num_images {args.num_images}: at least 10 are needed for three splits")
    return args


def main() -> None:
    args = parse_arguments()
    print_configuration(args, "sample community")
    if args.as_dump:
        truth = make_dump(args.output, args.num_images, args.seed, args.base_url, args.decoys, args.grounds)
        print(f"{args.num_images} pictures, {truth['posts']} posts → {args.output}/dump")
        return
    make_sample(args.output, args.num_images, args.seed, args.decoys, args.grounds)
    print(f"{args.num_images} pictures and their submissions → {args.output}")


if __name__ == "__main__":
    run_main(main)
