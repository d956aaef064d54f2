"""Other people's text files: whatever a line holds, it is read, blank, or malformed with its number and the reason."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from pathlib import Path

import pytest

from reading import tables
from reading.tables import Layout, UserError, csv_records, line_chunks, split_line

HEADER = "id,title,score"
LAYOUT = Layout(3, {"id": 0, "title": 1, "score": 2}, whole=("id", "score"), filled=("title",))


def read(path: Path, data: bytes | str, layout: Layout = LAYOUT) -> tuple[list, list, int, int]:
    """Rows (line, id, title, score), malformed (line, reason), blank lines, continued lines."""
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    rows, malformed, blank, continued = [], [], 0, 0
    for records in csv_records(path, lambda header: layout):
        rows += records.rows.select("line", "id", "title", "score").rows()
        malformed += [(each.line, each.reason) for each in records.malformed]
        blank, continued = blank + records.blank, continued + records.continued
    return rows, malformed, blank, continued


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "t.csv"


@pytest.mark.parametrize("where", ["title", "first", "last"])
@pytest.mark.parametrize("chunk", [40, 1 << 20])
def test_one_stray_quote_costs_that_line_and_no_other(path, monkeypatch, where, chunk):
    monkeypatch.setattr(tables, "CHUNK", chunk)
    lines = [HEADER, *(f"{i},picture {i},{i * 3}" for i in range(1, 1003))]
    stray = {"title": '500,"picture 500,1500', "first": '"500,picture 500,1500', "last": '500,picture 500,"1500'}[where]
    lines[500] = stray
    rows, malformed, *_ = read(path, "\n".join(lines) + "\n")
    # A quote before the last field is still a whole line.
    lost = [] if where == "last" else [501]
    assert [line for line, _ in malformed] == lost
    assert [row[0] for row in rows] == [line for line in range(2, 1004) if line not in lost]
    assert all("a quote opens and does not close" in reason for _, reason in malformed)


def test_two_stray_quotes_cost_two_lines_whether_apart_or_side_by_side(path):
    for places in ((3, 9), (3, 4), (3, 5)):
        lines = [HEADER, *(f"{i},picture {i},{i * 3}" for i in range(1, 12))]
        for place in places:
            lines[place] = lines[place].replace("picture", '"picture')
        rows, malformed, *_ = read(path, "\n".join(lines))
        assert [line for line, _ in malformed] == [place + 1 for place in places] and len(rows) == 9


def test_a_quote_opened_on_one_line_and_closed_on_another_does_not_mix_two_records(path):
    rows, malformed, *_ = read(path, f'{HEADER}\n1,"one,10\n2,two",20\n3,three,30\n')
    assert rows == [(3, 2, 'two"', 20), (4, 3, "three", 30)] and [line for line, _ in malformed] == [2]


@pytest.mark.parametrize("chunk", [8, 30, 1 << 20])
def test_a_quoted_title_may_hold_separators_quotes_and_newlines(path, monkeypatch, chunk):
    monkeypatch.setattr(tables, "CHUNK", chunk)
    rows, malformed, blank, continued = read(
        path, f'{HEADER}\n1,"a, b",1\n2,"a ""b""",2\n3,"a\n\nb, c",3\n4,"",4\n5,"d",5\n6,a 5" screen,6\n7,"a "b" c",7\n'
    )
    assert [row[1:3] for row in rows] == [
        (1, "a, b"),
        (2, 'a "b"'),
        (3, "a\n\nb, c"),
        (5, "d"),
        (6, 'a 5" screen'),
        (7, 'a b" c"'),
    ]
    assert (malformed, blank, continued) == ([(7, "no title")], 0, 2)


@pytest.mark.parametrize("blank", ["", "   ", "\t", "\r"])
def test_blank_lines_are_no_records_and_do_not_shift_the_numbers(path, blank):
    rows, malformed, blanks, _ = read(
        path, f"{blank}\n{HEADER}\n{blank}\n1,a,1\n{blank}\n{blank}\n2,b,x\n3,c,3\n{blank}\n"
    )
    assert [row[0] for row in rows] == [4, 8] and blanks == 4
    assert malformed == [(7, "score 'x' is not a whole number")]


@pytest.mark.parametrize("line", ["sep=,", "SEP=,\r", "\ufeffsep=,"])
def test_a_spreadsheets_line_about_the_separator_is_no_header(path, line):
    headers = []
    path.write_text(f"{line}\n{HEADER}\n1,a,2\n", encoding="utf-8", newline="")
    found = [each.rows for each in csv_records(path, lambda header: headers.append(header) or LAYOUT)]
    assert headers == [HEADER] and found[0]["line"].to_list() == [3]


@pytest.mark.parametrize("title", ["x" * 200_000, '"' + "x, " * 100_000 + '"', '"' + 'y"" ' * 50_000 + '\n z"'])
def test_a_title_may_be_as_long_as_it_likes(path, title):
    rows, malformed, *_ = read(path, f"{HEADER}\n1,{title},1\n2,b,2\n")
    assert [row[1] for row in rows] == [1, 2] and not malformed and len(rows[0][2]) >= 150_000


@pytest.mark.parametrize(("text", "number"), [("12.0", 12), ("12.", 12), (" 12 ", 12), ("+12", 12), ("-12.000", -12)])
def test_whole_numbers_as_other_tools_write_them(path, text, number):
    rows, malformed, *_ = read(path, f"{HEADER}\n1,a,{text}\n2,b,2\n")
    assert [row[3] for row in rows] == [number, 2] and not malformed


@pytest.mark.parametrize("text", ["12.5", "1e3", "1_0", "nan", "", "ten", "9" * 30, "٣", "0x1", "--1"])
def test_what_is_no_whole_number_is_named(path, text):
    rows, malformed, *_ = read(path, f"{HEADER}\n1,a,{text}\n2,b,2\n")
    assert len(rows) == 1 and malformed == [(2, f"score {text!r} is not a whole number")]


ENCODINGS = {
    "plain": lambda text: text.encode(),
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "Windows": lambda text: text.replace("\n", "\r\n").encode(),
    "old Mac": lambda text: text.replace("\n", "\r").encode(),
    "gzip": lambda text: gzip.compress(text.encode(), mtime=0),
    "two gzips": lambda text: gzip.compress(text[:20].encode(), mtime=0) + gzip.compress(text[20:].encode(), mtime=0),
    "bzip2": lambda text: bz2.compress(text.encode()),
    "xz": lambda text: lzma.compress(text.encode()),
    "zstd": lambda text: tables.zstd.compress(text.encode()),
    "zstd after a skippable frame": lambda text: (
        b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + tables.zstd.compress(text.encode())
    ),
    "no newline at the end": lambda text: text.rstrip("\n").encode(),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_compression_and_encoding_are_told_by_the_content(path, name):
    rows, malformed, *_ = read(path, ENCODINGS[name](f"{HEADER}\n1,snow ☃,1\n2,b,2\n"))
    assert rows == [(2, 1, "snow ☃", 1), (3, 2, "b", 2)] and not malformed


@pytest.mark.parametrize("name", ["NA", "null", "None", "nan", "N/A"])
def test_words_that_mean_a_gap_elsewhere_are_words(path, name):
    assert read(path, f"{HEADER}\n1,{name},1\n")[0] == [(2, 1, name, 1)]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"PK\x03\x04 and so on", "zip archive or a spreadsheet"),
        (b"PAR1 and so on", "Parquet"),
        (gzip.compress(b"id\n" * 9000, mtime=0)[:-9], "cannot be read"),
        (tables.zstd.compress(b"id\n" * 9000)[:-9], "cannot be read"),
    ],
)
def test_what_cannot_be_read_says_why(path, data, says):
    with pytest.raises(UserError, match=says):
        read(path, data)


def test_a_name_that_promises_an_archive_is_kept_to(tmp_path):
    for name in ("t.csv.gz", "t.zst", "t.bz2"):
        with pytest.raises(UserError, match="but it is not such an archive"):
            read(tmp_path / name, HEADER)


def test_of_a_file_that_is_cut_off_every_line_up_to_there_is_given(tmp_path):
    text = "".join(f"line {i} {random.Random(i).random()}\n" for i in range(200_000)).encode()
    for name, pack in (("t.gz", gzip.compress), ("t.zst", tables.zstd.compress)):
        packed = pack(text)
        (tmp_path / name).write_bytes(packed[: len(packed) // 2])
        got = []
        with pytest.raises(UserError, match=r"cannot be read beyond line \d+"):
            got.extend(chunk for _, _, chunk in line_chunks(tmp_path / name, 1 << 20))
        assert text.startswith(b"".join(got)) and len(b"".join(got)) > len(text) // 4


def test_lines_come_whole_and_with_their_numbers_whatever_the_chunk(path):
    lines = [b"x" * (i * 37 % 90) + b"\n" for i in range(500)]
    path.write_bytes(b"".join(lines))
    number = 1
    for first, count, chunk in line_chunks(path, 64):
        assert (
            first == number
            and count == chunk.count(b"\n")
            and chunk == b"".join(lines[number - 1 : number - 1 + chunk.count(b"\n")])
        )
        number += chunk.count(b"\n")
    assert number == 501


def test_a_line_without_an_end_is_cut_and_the_next_is_read(path, monkeypatch):
    monkeypatch.setattr(tables, "LONGEST_LINE", 3 << 20)
    rows, malformed, *_ = read(path, f"{HEADER}\n1,{'x' * (9 << 20)},1\n2,b,2\n")
    assert [row[1] for row in rows][-1] == 2 and len(rows) + len(malformed) == 2


def test_split_line_takes_other_separators_and_quotes():
    assert split_line('a;"b;c";d', ";") == ["a", "b;c", "d"] and split_line("") == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_of_mutated_lines_each_is_accounted_for(path, seed):
    """1,000 lines a seed: bytes swapped, dropped, doubled; quotes, separators and newlines strewn in."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    good = [f'{i},"title {i}, ""so""",{i}' if i % 3 else f"{i},title {i},{i}" for i in range(1000)]
    strewn = [
        b'"',
        b",",
        b"\n",
        b"\r",
        b"\x00",
        b"\xff",
        b'""',
        b"\r\n",
        b" ",
        b"\xef\xbb\xbf",
        b"\\",
        "☃".encode(),
        b"",
    ]
    lines = []
    for text in good:
        line = bytearray(text.encode())
        for _ in range(rng.choice((0, 0, 1, 2, 5))):
            place = rng.randrange(len(line) + 1)
            line[place : place + rng.choice((0, 0, 1, 3))] = rng.choice(strewn)
        lines.append(bytes(line))
    data = HEADER.encode() + b"\n" + b"\n".join(lines) + b"\n"
    for chunk in (50, 1000, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tables, "CHUNK", chunk)
            rows, malformed, blank, continued = read(path, data)
        total = data.count(b"\n") - 1
        assert len(rows) + len(malformed) + blank + continued == total
        numbers = sorted([row[0] for row in rows] + [line for line, _ in malformed])
        assert len(set(numbers)) == len(numbers) and numbers[0] >= 2 and numbers[-1] <= total + 1
        assert all(reason for _, reason in malformed)
        untouched = {text for text, line in zip(good, lines, strict=True) if text.encode() == line}
        texts = {f"title {i}" + (', "so"' if i % 3 else "") for i in range(1000) if good[i] in untouched}
        assert texts <= {row[2] for row in rows}  # no whole line was lost to its neighbour
