"""Download the Reddit data: the published metadata, then the pictures, with a ledger of every download.

    python download_images.py --data_path data/reddit [--num_images N] [--subreddits funny aww …] [--archive]
                              [--contact you@example.org]

Metadata: SNAP's submissions → redditSubmissions.csv.gz, Deza & Parikh's files → deza2015/; a file that differs from the
published one is moved to unverified/. Pictures: those of datasets/manifest.csv (img_id,img_link[,reddit_id][,sha256]) →
images/<img_id>.jpg. The manifest is written from Deza & Parikh's table or, if the folder contains one, from your own
table of submissions, submissions.csv.gz (columns url, subreddit): one row per picture, however many posts link to it
and in whatever form; its img_id is its image_id or, without one, a number derived from its address. If no row has an
address, the pictures already in images/ are used. A folder with such a table, or with a manifest and no deza2015/, is a
data set of your own, for which no metadata is fetched.

For each picture a chain of addresses is tried: its img_link (`link`; for an Imgur page the picture behind it, `imgur`,
and for an album the first one; for a Reddit preview first its `original`); what its Reddit posts (`post`) link to
(`reddit`); with --archive the Internet Archive's copies (`archive`). Grey and RGB JPEGs are kept byte for byte (with an
end marker added if only that is missing: `error` says so); everything else is converted to an upright RGB JPEG: the
first frame of an animation, transparency over white. --subreddits selects pictures with more than half of their
submissions in the communities named. --num_images takes a sample of them.

Statuses in images/ledger.csv: ok; changed (a complete picture, but its SHA-256, as served or as kept, is not that of
the manifest); placeholder (a page or picture in place of a removed one); gone (404, 410, 403, no picture at the
address); undecodable; too_large (bytes or pixels); rate_limited and transient, which a rerun tries again: no answer, an
incomplete one, a host that is busy or broken, a temporary refusal, or a host that refused every request. If the whole
chain fails, the most hopeful failure is recorded. If the hosts answer alike, two runs differ only in the column `time`
(UTC).

A run killed at any moment, even with -9, resumes where it stopped. Exit status: 0 everything available has been
downloaded; 1 something is rate_limited, transient or missing from the metadata (run it again), or --verify_only found
a fault; 2 wrong arguments or unusable input; 130 Ctrl-C. survivors.json counts the statuses and identifies the set of
pictures present: the SHA-256 of the list of their img_ids, one per line, in numerical order (`sort -n`).

Proxies and certificates are taken from the environment (HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE). Cost: 10,078
pictures, a few GB. An hour if img_link answers. Reddit answers clients without an account about ten requests a minute:
if it has to be asked for most pictures, days.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from fetching.addresses import Services, addresses_of, archived, post_address
from fetching.hosts import Limits, Task, parts_of
from fetching.ledger import AGAIN, COLUMNS, FORBIDDEN, KEPT, STATUSES, Ledger, natural
from fetching.request import Client
from fetching.workers import Run, download
from locks import alone
from reading.manifest import manifest_of, read_pictures
from utils import UserError, at_least, print_configuration, read_csv, run_main, sha256, write_csv, write_json

SNAP_FILE = "redditSubmissions.csv.gz"
SUBMISSIONS = "submissions.csv.gz"  # anybody's, as submissions.py writes it
MANIFEST = Path("datasets", "manifest.csv")
_RA = "Results_Computations/Relative_Attributes"
_SVM = "deep__split_01__rbf__weighted_F__bow_F__normalize_T__.mat"
# Deza & Parikh's files: name under deza2015/ → where it is in their repository, first digits of its SHA-256.
DEZA_FILES = {
    "viral_datasetV2.mat": ("Create_Dataset_Code/viral_datasetV2.mat", "1939b3688ea625a9"),
    "final_names.csv": ("Create_Dataset_Code/final_names.csv", "0116595bdff91233"),
    "authenticated_shift_score.csv": ("Create_Dataset_Code/authenticated_shift_score.csv", "7b7d568bb1f823b7"),
    "img_id.csv": ("Create_Dataset_Code/img_id.csv", "b6919c5e52be9d91"),
    "img_hash.csv": ("Create_Dataset_Code/img_hash.csv", "04391eed87489ef1"),
    "subreddit.csv": ("Create_Dataset_Code/subreddit.csv", "a14d1b4a7d0dfeca"),
    "img_score.csv": ("Create_Dataset_Code/img_score.csv", "40ec35a32bfb1c48"),
    "img_comments.csv": ("Create_Dataset_Code/img_comments.csv", "bba21b4dee9d13b0"),
    "pair_matrix.mat": ("pair_matrix.mat", "aad4fa20d7fa9d2c"),
    "Attribute_matrix.mat": ("Attribute_matrix.mat", "14182fa1786e1435"),
    "Top_489_pair.mat": ("Top_489_pair.mat", "4647f0c02632bf07"),
    "virality_label.mat": (f"{_RA}/virality_label.mat", "bcb1c0ea4f2ba295"),
    "attributes/SVM_Result_animal.mat": (f"{_RA}/animal_N/SVM_Result_0830_{_SVM}", "53275012163fda5c"),
    "attributes/SVM_Result_beautiful.mat": (f"{_RA}/beautiful_N/SVM_Result_0553_{_SVM}", "c62a372544881e82"),
    "attributes/SVM_Result_explicit.mat": (f"{_RA}/explicit_N/SVM_Result_0269_{_SVM}", "253e41dfe8e2954e"),
    "attributes/SVM_Result_sexual.mat": (f"{_RA}/sexual_N/SVM_Result_0262_{_SVM}", "dfb98137f0bd2027"),
    "attributes/SVM_Result_synthgen.mat": (f"{_RA}/synthgen_N/SVM_Result_1027_{_SVM}", "e1f623d79998ca7e"),
    "attributes/split_A1_Top.mat": (f"{_RA}/split_A1_Top.mat", "c197f212d68b1cb0"),
    "attributes/split_A2_Top.mat": (f"{_RA}/split_A2_Top.mat", "c8435e19e3f8ea64"),
    "attributes/split_A3_Top.mat": (f"{_RA}/split_A3_Top.mat", "276d7d1a7de67738"),
    "attributes/split_A4_Top.mat": (f"{_RA}/split_A4_Top.mat", "cbadc58f430d0478"),
    "attributes/split_A5_Top.mat": (f"{_RA}/split_A5_Top.mat", "cd77feede0fbd18a"),
    "attributes/unique_250.mat": (f"{_RA}/unique_250.mat", "57fc3cfe09798853"),
}


# --- what there is to do --------------------------------------------------------------------------------------------
def metadata_tasks(data_path: Path, services: Services) -> list[Task]:
    """The metadata files that are still missing; none for the user's own data set."""
    if any((data_path / own).exists() for own in (MANIFEST, SUBMISSIONS)) and not (data_path / "deza2015").exists():
        return []
    addresses = {SNAP_FILE: (f"{services.snap_url}/{SNAP_FILE}", "")}
    for name, (path, head) in DEZA_FILES.items():
        addresses[f"deza2015/{name}"] = (f"{services.deza_url}/{path}", head)
    return [
        Task(name, [("file", url)], expected)
        for name, (url, expected) in addresses.items()
        if not (data_path / name).exists()
    ]


def picture_task(picture: Any, services: Services, posts: int, archive: bool) -> Task:
    """A picture's chain of addresses, as far as known before Reddit is asked (about at most `posts` posts)."""
    found = addresses_of(picture.img_link, services)
    addresses = [
        *found,
        *(("post", post_address(post, services.reddit_url)) for post in picture.reddit_id.split()[:posts]),
    ]
    if archive and (copy := archived(found, services.archive_url)):
        addresses.append(copy)
    return Task(picture.img_id, addresses, picture.sha256.strip().lower())


def write_manifest(data_path: Path) -> None:
    """datasets/manifest.csv of Deza & Parikh's table, lowest V first, with the Reddit posts of each image in time."""
    import deza2015  # needs scipy, which would double the time of every other start

    folder = data_path / "deza2015"
    posts = deza2015.read_submissions(folder).groupby("image_id")["reddit_id"].agg(" ".join)
    table = deza2015.read_table(folder)
    table["reddit_id"] = table["SNAP_id"].map(posts).fillna("")
    write_csv(data_path / MANIFEST, table[["img_id", "img_link", "reddit_id"]])


def pictures_of(data_path: Path, write: bool = True) -> pd.DataFrame:
    """The pictures to download: those of the manifest, which is written from the table of submissions if need be."""
    path, submissions = data_path / MANIFEST, data_path / SUBMISSIONS
    manifest = read_manifest(path) if path.exists() else None
    if not submissions.exists() or (data_path / "deza2015").exists():
        return read_manifest(path) if manifest is None else manifest
    if manifest is not None and "submissions" not in manifest:
        print(f"{path} was not written from {submissions}: the manifest is used, and the table is not")
        return manifest
    found = manifest_of(submissions)
    if write and has_links(found):
        write_csv(path, found)
    return found.assign(reddit_id="", sha256="")


def has_links(pictures: pd.DataFrame) -> bool:
    """Whether there is anything to download: a table of pictures that are already present may have no addresses."""
    return bool((pictures["img_link"] != "").any())


def read_manifest(path: Path) -> pd.DataFrame:
    """The pictures to download: img_id, img_link, reddit_id (posts, space-separated), sha256; text, '' if unknown."""
    table = read_csv(path, ["img_id", "img_link"], dtype=str, keep_default_na=False)
    for column in ("reddit_id", "sha256"):
        if column not in table:
            table[column] = ""
    bad = ~table["img_id"].str.fullmatch(r"\w[\w.-]{0,99}") | table["img_id"].duplicated()
    if bad.any():
        row = int(bad.to_numpy().argmax())
        why = "is there twice" if table["img_id"].duplicated()[row] else "cannot be a file's name"
        raise UserError(f"{path}, line {row + 2}: the img_id {table['img_id'][row]!r} {why}")
    return table


def of_subreddits(manifest: pd.DataFrame, data_path: Path, subreddits: list[str]) -> pd.DataFrame:
    """The pictures with more than half of their submissions in these communities (names in any case)."""
    picture, community = submitted_to(data_path)
    community, wanted = community.str.lower(), {name.lower() for name in subreddits}
    if unknown := wanted - set(community):
        raise UserError(f"--subreddits {' '.join(sorted(unknown))}: no picture was submitted there")
    share = community.isin(wanted).groupby(picture.to_numpy()).mean()
    chosen = manifest["img_id"].isin(share.index[share > 0.5])
    if not chosen.any():
        raise UserError(f"--subreddits {' '.join(subreddits)}: no picture has most of its submissions there")
    return manifest[chosen]


def submitted_to(data_path: Path) -> tuple[pd.Series, pd.Series]:
    """The img_id of its picture (text) and the community of each submission."""
    folder, path = data_path / "deza2015", data_path / SUBMISSIONS
    if folder.is_dir():
        import deza2015

        submissions, table = deza2015.read_submissions(folder), deza2015.read_table(folder)
        img_ids = table.set_index("SNAP_id")["img_id"].astype(int).astype(str)
        return submissions["image_id"].map(img_ids), submissions["subreddit"]
    if path.exists():
        rows = read_pictures(path)
        return rows["img_id"], rows["subreddit"]
    raise UserError(f"--subreddits needs {folder}, which says where pictures were submitted; it does not exist")


def choose(
    manifest: pd.DataFrame, data_path: Path, subreddits: list[str] | None, num_images: int | None
) -> pd.DataFrame:
    """The selected pictures: all, those of `subreddits`, or a sample of `num_images` of these."""
    if subreddits:
        manifest = of_subreddits(manifest, data_path, subreddits)
    return sample(manifest, num_images)


def sample(manifest: pd.DataFrame, num_images: int | None) -> pd.DataFrame:
    """The first `num_images` in the order of a hash of img_id: a fair sample, though the manifest is sorted by V, and
    one that a larger number contains."""
    if num_images is None or num_images >= len(manifest):
        return manifest
    order = manifest["img_id"].map(lambda img_id: hashlib.sha256(img_id.encode()).hexdigest())
    return manifest.loc[sorted(order.sort_values().index[:num_images])]


def to_do(pictures: pd.DataFrame, ledger: Ledger, retry: list[str]) -> list[Any]:
    """The pictures never tried, to be retried, or lost since. Those that a host refused come last: otherwise it might
    never be asked for the others."""
    settled = set(STATUSES) - set(KEPT) - set(AGAIN) - set(retry)
    last = lambda img_id, column: ledger.rows.get(img_id, {}).get(column)  # noqa: E731
    chosen = [p for p in pictures.itertuples() if last(p.img_id, "status") not in settled and not ledger.kept(p.img_id)]
    return sorted(chosen, key=lambda picture: last(picture.img_id, "http_status") in FORBIDDEN)


# --- the command ----------------------------------------------------------------------------------------------------
def fetch_metadata(run: Run, workers: int) -> bool:
    """Fetch the metadata that is missing, and write the manifest from it. False if it cannot be written."""
    download(run, metadata_tasks(run.data_path, run.services), workers, "metadata")
    for row in run.lacking:
        print(f"error: {row['img_id']}: {row['status']}, {row['error']} ({row['url']})", file=sys.stderr)
    path = run.data_path / MANIFEST
    if not path.exists() and not (run.data_path / SUBMISSIONS).exists():
        if any(row["img_id"].startswith("deza2015/") for row in run.lacking):
            print(f"error: without these files {path} cannot be written", file=sys.stderr)
            return False
        write_manifest(run.data_path)
    return True


def fetch_pictures(
    run: Run,
    manifest: pd.DataFrame,
    workers: int,
    posts: int,
    retry: list[str],
    num_images: int | None = None,
    subreddits: list[str] | None = None,
) -> bool:
    """Fetch the selected pictures of the manifest and print the outcome. Returns whether a rerun would help."""
    ledger = run.ledger
    try:
        pictures = choose(manifest, run.data_path, subreddits, num_images)
        todo = to_do(pictures, ledger, retry)
        print(
            f"{len(manifest)} pictures in {run.data_path / MANIFEST}; {len(pictures)} asked for, {len(todo)} to do",
            flush=True,
        )
        tasks = [picture_task(picture, run.services, posts, run.archive) for picture in todo]
        download(run, tasks, workers, "pictures")
    finally:
        ledger.close()
        survivors = write_survivors(run.data_path, manifest, ledger)
    print(status_table(ledger, pictures["img_id"]))
    here = f"{survivors['survivors']} of {survivors['expected']} pictures are here"
    print(f"{here}: {run.data_path / 'survivors.json'}")
    return any(ledger.rows[img_id]["status"] in AGAIN for img_id in pictures["img_id"])


def write_survivors(data_path: Path, manifest: pd.DataFrame, ledger: Ledger) -> dict[str, Any]:
    """Write survivors.json: how many of the pictures are present, which ones, and the status of the others."""
    here = sorted((img_id for img_id in manifest["img_id"] if ledger.kept(img_id)), key=natural)
    counts = Counter(ledger.rows.get(img_id, {}).get("status", "not_tried") for img_id in manifest["img_id"])
    survivors = summary(here, len(manifest), {status: counts[status] for status in (*STATUSES, "not_tried")})
    write_json(data_path / "survivors.json", survivors)
    return survivors


def summary(here: list[str], expected: int, statuses: Mapping[str, int]) -> dict[str, Any]:
    """The summary of the present pictures in survivors.json."""
    digest = hashlib.sha256("".join(f"{img_id}\n" for img_id in here).encode()).hexdigest()
    return {"expected": expected, "survivors": len(here), "sha256": digest, "statuses": dict(statuses)}


def take_what_is_here(data_path: Path, pictures: pd.DataFrame) -> None:
    """For pictures without an address: print how many are already in images/, and write survivors.json."""
    here = sorted((i for i in pictures["img_id"] if (data_path / "images" / f"{i}.jpg").is_file()), key=natural)
    if not here:
        raise UserError(f"{data_path / SUBMISSIONS}: no row has an address in its column url, and "
                        f"{data_path / 'images'} holds none of its pictures (<image_id>.jpg)")  # fmt: skip
    print(f"no address in {data_path / SUBMISSIONS}: nothing is downloaded")
    survivors = summary(here, len(pictures), Counter(at_hand=len(here), missing=len(pictures) - len(here)))
    write_json(data_path / "survivors.json", survivors)
    print(f"{len(here)} of {len(pictures)} pictures are here: {data_path / 'survivors.json'}")


def status_table(ledger: Ledger, img_ids: pd.Series) -> str:
    """The pictures asked for: statuses by the source that served, or failed most hopefully."""
    table = pd.DataFrame([ledger.rows[img_id] for img_id in img_ids], columns=COLUMNS)
    table["status"] = pd.Categorical(table["status"], STATUSES)
    return pd.crosstab(table["status"], table["source"], margins=True, margins_name="all").to_string()


def verify(data_path: Path) -> int:
    """Re-read every file and compare it with the ledger's SHA-256. Returns 1 if one is missing or changed."""
    ledger = Ledger(data_path / "images")
    ledger.recover()
    kept = [row for _, row in sorted(ledger.rows.items(), key=lambda item: natural(item[0])) if row["status"] in KEPT]
    if not ledger.path.exists():
        raise UserError(f"{ledger.path} does not exist: nothing has been downloaded into {data_path}")
    faults = []
    for row in tqdm(kept, desc="verifying", unit="file", disable=None):
        path = ledger.picture(row["img_id"])
        if not path.is_file():
            faults.append(f"missing {path}")
        elif sha256(path) != row["sha256"]:
            faults.append(f"changed {path}")
    print("\n".join([*faults, f"{len(kept)} files in the ledger, {len(faults)} missing or changed"]))
    return int(bool(faults))


def dry_run(
    data_path: Path,
    services: Services,
    retry: list[str],
    num_images: int | None = None,
    subreddits: list[str] | None = None,
) -> None:
    """Print what a run would do, without requests and without writing anything."""
    for task in metadata_tasks(data_path, services):
        print(f"would fetch {data_path / task.name} from {task.first_address()}")
    path = data_path / MANIFEST
    if not path.exists() and not (data_path / SUBMISSIONS).exists():
        print(f"would write {path} from Deza & Parikh's table, and fetch its pictures (10,078 in all)")
        return
    pictures = choose(pictures_of(data_path, write=False), data_path, subreddits, num_images)
    pictures = pictures[pictures["img_link"] != ""]
    ledger = Ledger(data_path / "images")
    todo = [picture_task(picture, services, 1, False) for picture in to_do(pictures, ledger, retry)]
    hosts = Counter(parts_of(task.first_address()).netloc for task in todo)
    print(f"would fetch {len(todo)} of the {len(pictures)} pictures asked for; the first addresses to ask:")
    print("\n".join(f"  {number:>6} {host}" for host, number in hosts.most_common(20)))


def positive(word: str) -> float:
    if not 0 < (value := float(word)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{word} is not above 0")
    return value


def failed_statuses(words: str) -> list[str]:
    unknown = [word for word in words.split(",") if word not in STATUSES[2:]]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(STATUSES[2:])}")
    return words.split(",")


def printable(words: str) -> str:
    if not (words.isascii() and words.isprintable()):
        raise argparse.ArgumentTypeError("only printable ASCII can be sent in a request")
    return words


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("--data_path", default="data/reddit", help="the data set's folder (default %(default)s)")
    flag("--num_images", type=at_least(1), help="size of a sample of the manifest, by a hash of img_id (default: all)")
    flag(
        "--subreddits", nargs="+", metavar="NAME", help="pictures mostly submitted to these communities (default: all)"
    )
    flag("--metadata_only", action="store_true", help="download no pictures")
    flag("--archive", action="store_true", help="ask the Internet Archive last")
    flag(
        "--retry",
        type=failed_statuses,
        default=[],
        metavar="gone,…",
        help="statuses to retry in addition to rate_limited and transient",
    )
    flag("--verify_only", action="store_true", help="compare the files with the ledger's SHA-256; no requests")
    flag("--dry_run", action="store_true", help="print what would be done; no requests, nothing written")
    flag("--contact", type=printable, help="e-mail address or page where a host can reach you, for the user agent")
    flag("--workers", type=at_least(1), default=16, help="number of threads (default %(default)s)")
    flag("--posts", type=at_least(0), default=3, help="Reddit posts tried per picture (default %(default)s)")
    limit = lambda name, type, help: flag(  # noqa: E731
        f"--{name}", type=type, default=getattr(Limits, name), help=f"{help} (default %(default)s)"
    )
    limit("per_host", at_least(1), "concurrent requests per host")
    limit("retries", at_least(0), "retries of a request that fails temporarily")
    limit("backoff", positive, "seconds before the first retry, doubled each time; ± half")
    limit("max_wait", positive, "longest wait in seconds that a host may ask for")
    limit("connect_timeout", positive, "seconds")
    limit("read_timeout", positive, "seconds without data")
    limit("max_seconds", positive, "seconds for a whole picture")
    limit("max_bytes", at_least(1), "bytes of the largest picture")
    limit("max_pixels", at_least(1), "pixels of the largest picture")
    where = parser.add_argument_group("addresses of the services (for mirrors and tests)")
    for service in fields(Services):
        where.add_argument(f"--{service.name}", default=service.default)
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    print_configuration(args, "download")
    data_path, images = Path(args.data_path), Path(args.data_path) / "images"
    services, limits = of_flags(Services, args), of_flags(Limits, args)
    if args.dry_run:
        dry_run(data_path, services, args.retry, args.num_images, args.subreddits)
        return 0
    if args.verify_only and not images.is_dir():
        raise UserError(f"{images} is not a folder: nothing has been downloaded into {data_path}")
    # Threads that mostly wait give the interpreter up by themselves; taking it from them more often costs a tenth.
    sys.setswitchinterval(0.05)
    try:
        images.mkdir(parents=True, exist_ok=True)
        with alone(images / "ledger.csv"):
            if args.verify_only:
                return verify(data_path)
            run = Run(data_path, Ledger(images), Client(args.contact, limits), limits, services, args.archive)
            with run.ledger:
                again = not fetch_metadata(run, args.workers)
                if not again:
                    manifest = pictures_of(data_path)
                    if not has_links(manifest):
                        take_what_is_here(data_path, manifest)
                    elif not args.metadata_only:
                        chosen = (args.retry, args.num_images, args.subreddits)
                        again = fetch_pictures(run, manifest, args.workers, args.posts, *chosen)
            return int(again or bool(run.lacking))
    except BrokenPipeError:
        raise
    except OSError as error:  # a folder that may not be written, a full disk
        raise UserError(f"--data_path: {error.filename or data_path}: {error.strerror or error}") from error


def of_flags(kind: type[Any], args: argparse.Namespace) -> Any:
    """A `Limits` or `Services` from the flags named like its fields."""
    return kind(**{field.name: getattr(args, field.name) for field in fields(kind)})


if __name__ == "__main__":
    run_main(main)
