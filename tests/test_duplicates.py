"""Copies of pictures are found and told apart; what only looks alike is not joined; people's corrections are obeyed."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.fft
import scipy.stats
import torch
from conftest import run_here
from PIL import Image, ImageDraw, ImageFont, ImageOps

import sample_data
from copies import alignment, groups, hashing, search, store, verification

WORDS = "when you see my cat and it is not what I expected nobody at work after two hours said why we laugh".split()
KINDS = {"encoded": "same", "half": "same", "mirrored": "mirrored", "cropped": "cropped", "captioned": "captioned"}


# --- plants -----------------------------------------------------------------------------------------------------------
def encoded(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(rng.integers(30, 91)))
    return Image.open(file).convert("RGB")


def half(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return encoded(picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BICUBIC), rng)


def mirrored(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return encoded(ImageOps.mirror(picture), rng)


def cropped(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """5 to 10 % off one side, off each dimension in all, or off each of the four sides."""
    share = rng.uniform(0.05, 0.1, 4)
    if (way := rng.integers(3)) == 0:
        share *= np.arange(4) == rng.integers(4)
    elif way == 1:
        part = rng.uniform(0, 1, 2)
        share = np.array([share[0] * part[0], share[1] * part[1], share[0] * (1 - part[0]), share[1] * (1 - part[1])])
    width, height = picture.size
    left, top, right, bottom = (share * [width, height, width, height]).round().astype(int).tolist()
    return encoded(picture.crop((left, top, width - right, height - bottom)), rng)


def captioned(picture: Image.Image, rng: np.random.Generator, words: str = "") -> Image.Image:
    """A bar above or below, white or black, with a text."""
    width, height = picture.size
    bar, (ground, ink) = (
        round(height * rng.uniform(0.1, 0.35)),
        [("white", "black"), ("black", "white")][rng.integers(2)],
    )
    top = bool(rng.integers(2))
    whole = Image.new("RGB", (width, height + bar), ground)
    whole.paste(picture, (0, bar if top else 0))
    words = words or " ".join(rng.choice(WORDS, int(rng.integers(4, 12))))
    write(whole, words, (0, 0 if top else height, width, bar), max(9, int(bar * rng.uniform(0.3, 0.6))), ink)
    return encoded(whole, rng)


def overwritten(picture: Image.Image, rng: np.random.Generator, words: str = "") -> Image.Image:
    """White letters with a black rim in the upper or lower part of the picture."""
    picture, (width, height) = picture.copy(), picture.size
    words = words or " ".join(rng.choice(WORDS, 5))
    place = 0, int(height * rng.choice([0.02, 0.75])), width, int(height * 0.22)
    write(picture, words, place, int(height * 0.1), "white", rim="black")
    return encoded(picture, rng)


def write(picture, words, place, size, ink, rim=None) -> None:
    left, top, width, height = place
    draw, font, lines = ImageDraw.Draw(picture), ImageFont.load_default(size), [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if draw.textlength(longer, font=font) < width - 8 else [*lines, word]
    text = "\n".join(lines[: max(1, int(height / size / 1.15))])
    draw.multiline_text((left + 4, top + 2), text, ink, font, stroke_width=1 if rim else 0, stroke_fill=rim)


MAKE = {"encoded": encoded, "half": half, "mirrored": mirrored, "cropped": cropped, "captioned": captioned}


def plant(folder: Path, sources: list[Path], each: int, seed: int, make=MAKE) -> pd.DataFrame:
    """A data set of the sources, and `each` copies of every kind: img_id, of, kind of the copies."""
    rng, images, rows = np.random.default_rng(seed), folder / "images", []
    images.mkdir(parents=True)
    for img_id, path in enumerate(sources, 1):
        shutil.copy(path, images / f"{img_id}.jpg")
    for kind, function in make.items():
        for of in rng.choice(len(sources), each, replace=False) + 1:
            img_id = len(sources) + len(rows) + 1
            function(Image.open(images / f"{of}.jpg").convert("RGB"), rng).save(images / f"{img_id}.jpg", quality=95)
            rows.append((img_id, int(of), kind))
    return pd.DataFrame(rows, columns=["img_id", "of", "kind"])


def find(folder: Path, *flags: object) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """The groups, the pairs and what was said."""
    done = run_here("duplicates.py", folder, "--output", folder / "groups.csv", *flags)
    assert done.returncode == 0, done.stderr
    return pd.read_csv(folder / "groups.csv"), pd.read_csv(folder / "groups.pairs.csv"), done.stdout


def recall(truth: pd.DataFrame, table: pd.DataFrame) -> pd.Series:
    group = table.set_index("img_id")["group"]
    return (truth["img_id"].map(group) == truth["of"].map(group)).groupby(truth["kind"], sort=False).mean()


def false_pairs(truth: pd.DataFrame, pairs: pd.DataFrame) -> set[tuple[int, int]]:
    """Joined pairs of pictures that were not made from one another, as the pictures that they were made from."""
    of, joined = truth.set_index("img_id")["of"], pairs[pairs["joined"] == 1]
    both = [joined[name].map(of).fillna(joined[name]).astype(int) for name in ("img_id_1", "img_id_2")]
    return {(min(one, other), max(one, other)) for one, other in zip(*both, strict=True) if one != other}


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    """60 pictures drawn by code and five copies of each kind. Read only but for the cache."""
    folder = tmp_path_factory.mktemp("copies")
    sample_data.make_sample(folder / "drawn", num_images=60, seed=3)
    sources = [folder / "drawn" / "images" / f"{img_id}.jpg" for img_id in range(1, 61)]
    return folder / "data", plant(folder / "data", sources, each=5, seed=1)


# --- hashes -----------------------------------------------------------------------------------------------------------
def some_pixels(n: int = 8, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 12, 12)).astype(np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((64, 64), Image.Resampling.BICUBIC)) for each in coarse])


def test_the_hash_of_the_whole_is_the_signs_of_the_cosine_transform():
    pixels = some_pixels()
    spectrum = scipy.fft.dctn(pixels.astype(float), axes=(1, 2))
    signs = spectrum[:, hashing.DOWN, hashing.ACROSS] > 0
    wanted = np.packbits(np.ascontiguousarray(signs), axis=1, bitorder="little").view(np.uint64)[:, 0]
    assert np.bitwise_count(wanted ^ hashing.hash_windows(pixels)[:, 0]).max() <= 1  # a sum of nearly 0 may round
    assert len({*zip(hashing.DOWN.tolist(), hashing.ACROSS.tolist(), strict=True)}) == 64


def test_a_window_has_the_hash_of_its_crop():
    large = np.kron(some_pixels(), np.ones((1, 10, 10), np.uint8))
    place = hashing.LOOKING.index((0.1, 0.9, 0, 0.9))
    crop = Image.fromarray(large[0]).crop((64, 0, 576, 576)).resize((64, 64), Image.Resampling.BOX)
    found = hashing.hash_windows(np.stack([some_pixels()[0], np.asarray(crop)]))
    assert np.bitwise_count(found[0, place] ^ found[1, 0]) <= 2


def test_the_mirror_image_has_the_hash_with_its_odd_bits_turned():
    pixels = some_pixels()
    straight, turned = hashing.hash_windows(pixels)[:, 0], hashing.hash_windows(pixels[:, :, ::-1].copy())[:, 0]
    assert np.bitwise_count(straight ^ hashing.MIRROR ^ turned).max() <= 1


def random_hashes(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, (n, hashing.N_HASHES), np.uint64)


def test_all_hashes_within_three_bits_are_found_and_no_others():
    rng, hashes = np.random.default_rng(5), random_hashes(400)
    for other in range(200, 400):  # of 200 pairs, up to 3 bits of one hash differ; in half of them mirrored
        bits = rng.choice(64, int(rng.integers(4)), replace=False)
        flip = np.bitwise_xor.reduce(np.uint64(1) << bits.astype(np.uint64), initial=np.uint64(0))
        looking, looked_for = (
            rng.integers(len(hashing.LOOKING)),
            len(hashing.LOOKING) + rng.integers(len(hashing.BETWEEN)),
        )
        hashes[other, looking] = (
            hashes[other - 200, looked_for] ^ flip ^ (hashing.MIRROR if other % 2 else np.uint64(0))
        )
    found = hashing.candidates(hashes)
    assert {*zip(found.first.tolist(), found.second.tolist(), found.mirrored.tolist(), strict=True)} == {
        (other - 200, other, bool(other % 2)) for other in range(200, 400)
    }


def test_a_crop_is_placed_where_it_was_cut_out():
    pixels = np.kron(some_pixels(1, seed=2)[0], np.ones((5, 5), np.uint8))
    box = 22, 6, 320, 300  # of 320
    crop = Image.fromarray(pixels).crop(box).resize((64, 64), Image.Resampling.BOX)
    hashes = hashing.hash_windows(np.stack([some_pixels(1, seed=2)[0], np.asarray(crop)]))
    guesses = hashing.place(hashes, hashing.candidates(hashes))
    small = [torch.from_numpy(each.copy())[None].float() for each in (some_pixels(1, seed=2)[0], np.asarray(crop))]
    left, first, second = verification.settle(*small, torch.from_numpy(guesses), torch.tensor([False]))
    assert left.tolist() == [0]
    scale = (first[0, [1, 3]] - first[0, [0, 2]]) / (second[0, [1, 3]] - second[0, [0, 2]])
    start = first[0, [0, 2]] - second[0, [0, 2]] * scale
    assert torch.allclose(start, torch.tensor([22 / 320, 6 / 320]), atol=0.004)
    assert torch.allclose(scale, torch.tensor([298 / 320, 294 / 320]), atol=0.004)


def test_regions_shared_by_two_crops():
    first, second = torch.tensor([[0.1, 1.1, -0.2, 0.8]]), torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    one, other = alignment.shared(first, second)
    assert torch.allclose(one, torch.tensor([[0.1, 1.0, 0.0, 0.8]]))
    assert torch.allclose(other, torch.tensor([[1.0, 0.1, 0.2, 1.0]]), atol=1e-6)


# --- the command ------------------------------------------------------------------------------------------------------
def test_copies_of_drawn_pictures_are_found_and_told_apart(planted):
    folder, truth = planted
    table, pairs, said = find(folder)
    assert recall(truth, table).to_dict() == dict.fromkeys(KINDS, 1.0)
    assert false_pairs(truth, pairs) == set()
    assert table["img_id"].is_monotonic_increasing and len(table) == 85
    by_id = table.set_index("img_id")
    assert (by_id.loc[truth["of"], "group"] <= truth["of"].to_numpy()).all()
    kinds = pairs.set_index(["img_id_1", "img_id_2"])["kind"]
    told = [kinds[of, img_id] == KINDS[kind] for img_id, of, kind in truth.itertuples(index=False)]
    assert np.mean(told) > 0.9
    alone = table[~table["group"].duplicated(keep=False)]
    assert (alone["group"] == alone["img_id"]).all() and alone[["kind", "of", "distance"]].isna().all(axis=None)
    assert f"85 pictures, {len(table) - len(alone)} of them in {table['group'].nunique() - len(alone)} groups" in said


def test_copies_of_photographs_are_found_and_told_apart(real_data, tmp_path):
    sources = [real_data / "scenes" / "images" / f"{img_id}.jpg" for img_id in range(301, 361)]
    truth = plant(tmp_path / "data", sources, each=8, seed=2)
    table, pairs, _ = find(tmp_path / "data")
    assert recall(truth, table).to_dict() == dict.fromkeys(KINDS, 1.0)
    assert false_pairs(truth, pairs) == set()
    kinds = pairs.set_index(["img_id_1", "img_id_2"])["kind"]
    told = [kinds.get((of, img_id)) == KINDS[kind] for img_id, of, kind in truth.itertuples(index=False)]
    assert np.mean(told) > 0.9


def test_one_picture_under_two_captions_is_no_copy_unless_asked_for(real_data, tmp_path):
    def with_words(words):
        return lambda picture, rng: captioned(picture, np.random.default_rng(8), words)

    sources = [real_data / "scenes" / "images" / f"{img_id}.jpg" for img_id in (3, 200, 455, 700, 61, 388)]
    make = {"one": with_words("when the cat sees it"), "other": with_words("nobody expected us here")}
    truth = plant(tmp_path / "data", sources, each=6, seed=3, make=make)
    for path in (tmp_path / "data" / "images" / f"{of}.jpg" for of in truth["of"].unique()):
        path.unlink()
    table, pairs, said = find(tmp_path / "data")
    assert table["group"].is_unique and set(pairs["kind"]) == {"variant"} and set(pairs["joined"]) == {0}
    assert f"{len(pairs)} pairs of variants" in said and len(pairs) >= 4
    table, pairs, _ = find(tmp_path / "data", "--variants", "join")
    assert set(pairs["joined"]) == {1} and table["group"].nunique() == 12 - len(pairs)


def test_a_text_written_into_a_picture_is_told_from_two_texts(real_data, tmp_path):
    sources = [real_data / "scenes" / "images" / f"{img_id}.jpg" for img_id in (3, 200, 12, 700, 61, 388, 44, 520)]
    truth = plant(tmp_path / "one", sources, each=8, seed=4, make={"overwritten": overwritten})
    table, pairs, _ = find(tmp_path / "one")
    assert recall(truth, table)["overwritten"] >= 0.7
    assert set(pairs.loc[pairs["joined"] == 1, "kind"]) == {"captioned"}
    there = lambda words: lambda picture, rng: overwritten(picture, np.random.default_rng(1), words)  # noqa: E731
    make = {"one": there("when the cat sees it"), "other": there("nobody expected us here")}
    truth = plant(tmp_path / "two", sources, each=8, seed=5, make=make)
    for of in truth["of"].unique():
        (tmp_path / "two" / "images" / f"{of}.jpg").unlink()
    table, _, _ = find(tmp_path / "two")
    assert table["group"].is_unique


def test_plain_skies_and_empty_pages_are_no_copies_unless_identical(tmp_path):
    images, rng = tmp_path / "images", np.random.default_rng(0)
    images.mkdir()
    for img_id in range(1, 7):  # skies, lighter towards the ground, grainy
        low, high = rng.uniform(150, 200), rng.uniform(205, 250)
        sky = np.linspace(low, high, 120)[:, None] + rng.normal(0, 2, (120, 160))
        Image.fromarray(sky.clip(0, 255).astype(np.uint8)).save(images / f"{img_id}.jpg", quality=80)
    for img_id, words in ((7, "yes"), (8, "no, never"), (9, "perhaps")):
        page = Image.new("RGB", (160, 120), "white")
        write(page, words, (40, 50, 100, 20), 12, "black")
        page.save(images / f"{img_id}.jpg")
    Image.new("RGB", (160, 120), "white").save(images / "10.jpg")
    shutil.copy(images / "10.jpg", images / "11.jpg")
    shutil.copy(images / "3.jpg", images / "12.jpg")
    table, _, _ = find(tmp_path)
    assert table.set_index("img_id")["group"].to_dict() == dict(zip(range(1, 13), [*range(1, 11), 10, 3], strict=True))


def test_a_second_run_looks_at_nothing_again_and_a_changed_picture_is_read_again(planted, tmp_path):
    folder = shutil.copytree(planted[0], tmp_path / "data", ignore=shutil.ignore_patterns("processed", "groups*"))
    assert "pictures are hashed" not in find(folder)[2]
    kept = {path: path.stat().st_mtime_ns for path in (folder / "processed" / "copies").rglob("*.*")}
    before, _, said = find(folder)
    assert "85 of 85 pictures are hashed" in said
    assert {path: path.stat().st_mtime_ns for path in (folder / "processed" / "copies").rglob("*.*")} == kept
    shutil.copy(folder / "images" / "1.jpg", folder / "images" / "2.jpg")  # in place of another
    (folder / "images" / "3.jpg").unlink()
    after, _, said = find(folder)
    assert "83 of 84 pictures are hashed" in said
    group = after.set_index("img_id")["group"]
    assert group[2] == group[1] and 3 not in group and before.set_index("img_id")["group"][2] != 1
    for path in (folder / "processed" / "copies").glob("hashes_*.npy"):
        os.truncate(path, path.stat().st_size // 2)  # a disk's fault
    again, _, said = find(folder)
    pd.testing.assert_frame_equal(again, after)
    assert "pictures are hashed" not in said


def test_a_killed_run_goes_on_after_the_last_block(planted, tmp_path, monkeypatch):
    folder, _ = planted
    img_ids = np.arange(1, 86)
    monkeypatch.setattr(store, "BLOCK", 32)
    read, seen = store.read, []

    def killed(source, max_pixels):
        seen.append(source.path)
        if len(seen) > 70:
            raise KeyboardInterrupt
        return read(source, max_pixels)

    monkeypatch.setattr(store, "read", killed)
    with pytest.raises(KeyboardInterrupt):
        store.load_small(folder, img_ids, tmp_path / "cache", 1)
    monkeypatch.setattr(store, "read", lambda source, limit: seen.append(source.path) or read(source, limit))
    seen.clear()
    small = store.load_small(folder, img_ids, tmp_path / "cache", 1)
    assert len(small) == 85 and seen == [str(img_id) for img_id in range(65, 86)]

    monkeypatch.setattr(search, "BLOCK", 10)
    pictures = [store.grey(store.Source("", str(folder / "images" / f"{img_id}.jpg"))) for img_id in img_ids]
    whole = search.find_pairs(small.hashes, small.pixels, pictures.__getitem__)
    asked = []

    def stops(place):
        asked.append(place)
        if len(asked) > 30:
            raise KeyboardInterrupt
        return pictures[place]

    with pytest.raises(KeyboardInterrupt):
        search.find_pairs(small.hashes, small.pixels, stops, keep=tmp_path / "pairs")
    first = len(asked)
    asked.clear()
    found = search.find_pairs(
        small.hashes, small.pixels, lambda p: asked.append(p) or pictures[p], keep=tmp_path / "pairs"
    )
    pd.testing.assert_frame_equal(found, whole)
    assert first + len(asked) < 30 + 2 * len(whole) + 20  # at most a block is looked at twice


def test_features_find_what_hashes_miss(real_data, tmp_path):
    sources = [real_data / "scenes" / "images" / f"{img_id}.jpg" for img_id in range(101, 121)]
    far = lambda picture, rng: picture.crop((34, 10, 196, 170))  # noqa: E731  beyond what the windows undo
    truth = plant(tmp_path / "data", sources, each=10, seed=6, make={"far": far})
    assert recall(truth, find(tmp_path / "data")[0])["far"] <= 0.3
    features = np.random.default_rng(0).normal(size=(30, 16))
    for img_id, of, _ in truth.itertuples(index=False):
        features[img_id - 1] = features[of - 1] + 0.01
    names = np.array([f"images/{img_id}.jpg" for img_id in range(1, 31)])
    np.savez(tmp_path / "features.npz", names=names, features=features)
    table, pairs, _ = find(tmp_path / "data", "--features", tmp_path / "features.npz")
    assert recall(truth, table)["far"] >= 0.7 and false_pairs(truth, pairs) == set()
    np.savez(tmp_path / "features.npz", names=names[:20], features=features[:20])
    done = run_here("duplicates.py", tmp_path / "data", "--features", tmp_path / "features.npz")
    assert done.returncode == 2 and "no features of img_id 21 (10 are missing)" in done.stderr


# --- groups -----------------------------------------------------------------------------------------------------------
def pairs_of(*rows: tuple[int, int, str, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["first", "second", "kind", "distance"])


def test_a_chain_of_crops_is_cut():
    chain = pairs_of(*[(i, i + 1, "cropped", 0.1) for i in range(6)])
    group = groups.group_pictures(8, chain, np.full((8, 2), 100))
    assert pd.Series(group).value_counts().max() == 3 and group[7] == 7
    star = pairs_of(*[(0, i, "captioned", 0.1) for i in range(1, 6)], (5, 6, "same", 0.0), (4, 7, "cropped", 0.1))
    assert groups.group_pictures(8, star, np.full((8, 2), 100)).tolist() == [0, 0, 0, 0, 0, 0, 0, 7]
    twice = pairs_of(*star.itertuples(index=False), (3, 7, "cropped", 0.1))
    assert set(groups.group_pictures(8, twice, np.full((8, 2), 100))) == {0}


def test_groups_do_not_depend_on_the_order_of_the_pairs():
    rng = np.random.default_rng(0)
    pairs = pairs_of(
        *[
            (*sorted(rng.choice(40, 2, replace=False).tolist()), "cropped", round(rng.uniform(0, 0.5), 3))
            for _ in range(30)
        ]
    )
    pairs, sizes = pairs.drop_duplicates(["first", "second"]), rng.integers(50, 500, (40, 2))
    wanted = groups.group_pictures(40, pairs, sizes)
    for seed in range(5):
        assert (groups.group_pictures(40, pairs.sample(frac=1, random_state=seed), sizes) == wanted).all()


def test_what_a_person_has_corrected_is_obeyed(planted, tmp_path):
    folder, truth = planted
    table, _, _ = find(folder)
    by_id = table.set_index("img_id")
    one = truth[(truth["kind"] == "encoded") & (by_id.loc[truth["of"], "group"].to_numpy() == truth["of"])].iloc[0]
    together = by_id.index[by_id["group"] == by_id.loc[one["of"], "group"]].tolist()
    new = truth[truth["kind"] == "half"].iloc[0]
    corrected = table[table["img_id"] != new["img_id"]].copy()  # it came later: nobody has looked at it
    corrected.loc[corrected["img_id"] == one["img_id"], "group"] = 9999  # unticked on the page
    free = [i for i in by_id.index if (by_id["group"] == by_id.loc[i, "group"]).sum() == 1][:2]
    corrected.loc[corrected["img_id"].isin(free), "group"] = free[0]  # joined by hand
    corrected.to_csv(tmp_path / "corrected.csv", index=False)
    after, _, _ = find(folder, "--undo", tmp_path / "corrected.csv")
    after = after.set_index("img_id")["group"]
    assert after[one["img_id"]] == one["img_id"]
    assert set(after[[i for i in together if i != one["img_id"]]]) == {one["of"]}
    assert after[free[1]] == free[0] == after[free[0]]
    assert after[new["img_id"]] == after[new["of"]]
    others = [i for i in by_id.index if i not in {*together, *free}]
    assert (after[others] == by_id.loc[others, "group"]).all()


def test_the_page_shows_the_groups_the_doubtful_ones_first(tabled, tmp_path):
    path = tabled / "datasets" / "data_set_iv.csv"
    pd.read_csv(path).assign(score=lambda rows: rows["img_id"] * 10).to_csv(path, index=False)
    table, _, said = find(tabled, "--page", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    rows = json.loads(re.search(r'\{"rows":.*\}\}', page).group())["rows"]
    shown = table[table["group"].duplicated(keep=False)]
    assert sorted(int(row[0]) for row in rows) == shown["img_id"].tolist() and str(tmp_path / "page.html") in said
    assert all(row[4] == 10 * int(row[0]) and row[5].startswith("data:image/jpeg") for row in rows)
    doubt = shown.groupby("group")["distance"].max()
    doubts = [doubt[int(row[1])] for row in rows]
    assert doubts == sorted(doubts, reverse=True)
    (tmp_path / "groups.csv").write_text("img_id,group\n" + "".join(f"{row[0]},{row[0]}\n" for row in rows))
    assert find(tabled, "--undo", tmp_path / "groups.csv")[0]["group"].is_unique


# --- tables and bad input ---------------------------------------------------------------------------------------------
@pytest.fixture
def tabled(planted, tmp_path) -> Path:
    folder = shutil.copytree(planted[0], tmp_path / "data", ignore=shutil.ignore_patterns("groups*"))
    (folder / "datasets").mkdir()
    rows = "".join(f"{img_id},{img_id / 7:.17g},'=x\n" for img_id in [*range(85, 0, -1), 1000])
    (folder / "datasets" / "data_set_iv.csv").write_text("img_id,v_score,note\n" + rows)
    return folder


def test_groups_are_written_into_the_tables(tabled):
    path = tabled / "datasets" / "data_set_iv.csv"
    before = path.read_text()
    table, _, said = find(tabled)
    assert path.read_text() == before
    table, _, said = find(tabled, "--write")
    after = pd.read_csv(path, dtype=str)
    assert after.drop(columns="group").to_csv(index=False) == before and str(path) in said
    group = after.set_index("img_id")["group"].astype(int)
    assert group["1000"] == 1000  # no such picture
    assert (table["group"].to_numpy() == group[table["img_id"].astype(str)].to_numpy()).all()
    again = find(tabled, "--write")
    assert path.read_text() == after.to_csv(index=False) and again[0].equals(table)


def test_a_split_that_parts_copies_is_refused_and_nothing_written(tabled, planted):
    path, truth = tabled / "datasets" / "data_set_iv.csv", planted[1]
    table = pd.read_csv(path, dtype=str).assign(split="train")
    table.loc[table["img_id"] == str(truth["img_id"].iloc[0]), "split"] = "test"
    table.to_csv(path, index=False)
    before = path.read_text()
    done = run_here("duplicates.py", tabled, "--output", tabled / "groups.csv", "--write")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert (
        "column split separates 1 groups of copies" in done.stderr and f"{truth['img_id'].iloc[0]} test" in done.stderr
    )
    assert path.read_text() == before


def test_what_cannot_be_used_is_said_in_a_line(planted, tmp_path):
    def fails(*words, **kept):
        done = run_here("duplicates.py", *words)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        return done.stderr

    assert "is not a folder" in fails(tmp_path / "none")
    assert "images" in fails(tmp_path)
    (tmp_path / "images").mkdir()
    assert "holds no pictures named <img_id>.jpg" in fails(tmp_path)
    for name in ("x.jpg", "007.jpg", "5.jpg"):
        (tmp_path / "images" / name).write_bytes(b"no picture")
    assert "none of the 1 pictures" in fails(tmp_path)
    assert "--write" in fails(planted[0], "--write", "--output", tmp_path / "groups.csv")
    (tmp_path / "by_hand.csv").write_text("img_id,group\n1,1\nx,1\n")
    assert "by_hand.csv line 3: img_id 'x' is not a whole number" in fails(
        planted[0], "--undo", tmp_path / "by_hand.csv"
    )
    (tmp_path / "by_hand.csv").write_text("img_id,group\n1,1\n1,2\n")
    assert "has img_id 1 twice" in fails(planted[0], "--undo", tmp_path / "by_hand.csv")
    (tmp_path / "features.npz").write_bytes(b"no features")
    assert "not a feature file" in fails(planted[0], "--features", tmp_path / "features.npz")
    shutil.copy(planted[0] / "images" / "1.jpg", tmp_path / "images" / "1.jpg")
    table, pairs, said = find(tmp_path, "--left_out", tmp_path / "left_out.csv")
    assert table["img_id"].tolist() == [1] and pairs.empty
    assert "5.jpg: not a picture" in said and "2 pictures of" in said  # x and 007
    assert pd.read_csv(tmp_path / "left_out.csv")["path"].tolist() == [str(tmp_path / "images" / "5.jpg")]
    width, height = Image.open(planted[0] / "images" / "1.jpg").size
    assert "none of the 2 pictures" in fails(tmp_path, "--max_pixels", width * height - 1)
    assert "which is to be read" in fails(
        tmp_path, "--undo", tmp_path / "groups.csv", "--output", tmp_path / "groups.csv"
    )


# --- the full acceptance ----------------------------------------------------------------------------------------------
# Pairs of scenes that are two cuts of one photograph, as a look at them shows.
ONE_PHOTOGRAPH = {(33, 161), (151, 769), (235, 273)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_a_hundred_of_each_kind_among_the_scenes(real_data, tmp_path, seed):
    sources = [real_data / "scenes" / "images" / f"{img_id}.jpg" for img_id in range(1, 801)]
    truth = plant(tmp_path / "data", sources, each=100, seed=seed, make=MAKE | {"overwritten": overwritten})
    table, pairs, _ = find(tmp_path / "data")
    found = recall(truth, table)
    kinds = pairs.set_index(["img_id_1", "img_id_2"])["kind"]
    for kind, share in found.items():
        interval = scipy.stats.binomtest(round(share * 100), 100).proportion_ci(method="wilson")
        rows = truth[truth["kind"] == kind]
        told = pd.Series([kinds.get((of, i), "none") for i, of in zip(rows["img_id"], rows["of"], strict=True)])
        print(
            f"{kind:<12} {share:.2f} ({interval.low:.3f} to {interval.high:.3f}, n 100) {told.value_counts().to_dict()}"
        )
    assert found["encoded"] >= 0.99 and found["half"] >= 0.99 and found["mirrored"] >= 0.95
    assert found["cropped"] >= 0.9 and found["captioned"] >= 0.9 and found["overwritten"] >= 0.8
    assert false_pairs(truth, pairs) <= ONE_PHOTOGRAPH


@pytest.mark.slow
def test_no_false_group_among_the_scenes_and_the_known_groups_among_the_memes(real_data, tmp_path):
    done = {}
    for name in ("scenes", "memes"):
        flags = "--cache", tmp_path / name, "--output", tmp_path / f"{name}.csv"
        assert run_here("duplicates.py", real_data / name, *flags).returncode == 0
        done[name] = pd.read_csv(tmp_path / f"{name}.csv"), pd.read_csv(tmp_path / f"{name}.pairs.csv")
    assert false_pairs(pd.DataFrame(columns=["img_id", "of"]), done["scenes"][1]) == ONE_PHOTOGRAPH
    table, pairs = done["memes"]
    known = pd.read_csv(real_data / "memes" / "submissions.csv").set_index("img_id")["near_duplicate_group"].dropna()
    group = table.set_index("img_id")["group"]
    together = {tuple(ids): group[ids].nunique() == 1 for ids in known.groupby(known).groups.values()}
    # Of the 28 known groups three are one template under two captions, as a look at them shows.
    templates = {(16, 1796), (655, 1455), (1150, 1668)}
    assert sum(found for ids, found in together.items() if ids not in templates) >= 0.95 * 25
    assert not any(together[ids] for ids in templates)
    kinds = pairs.set_index(["img_id_1", "img_id_2"])["kind"]
    assert {kinds[ids] for ids in templates} == {"variant"}


@pytest.mark.slow
def test_a_hundred_thousand_made_up_sets_of_hashes():
    rng = np.random.default_rng(0)
    base = hashing.hash_windows(some_pixels(1000, seed=9))
    hashes = np.concatenate([base ^ rng.integers(0, 2**64, (1000, 1), np.uint64) for _ in range(100)])
    copies = rng.choice(50_000, 2000, replace=False)
    hashes[50_000 + np.arange(2000)] = hashes[copies] ^ np.uint64(0b101)
    found = hashing.candidates(hashes)
    wanted = {*zip(copies.tolist(), range(50_000, 52_000), strict=True)}
    pairs = {*zip(found.first.tolist(), found.second.tolist(), strict=True)}
    assert wanted <= pairs and len(pairs - wanted) < 1000  # of five thousand million
