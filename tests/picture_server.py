"""Serve the pictures of a made-up dump on loopback, as the hosts that its posts name would.

    python tests/picture_server.py data/own/dump/pictures --port 8000

A dump whose other files are here too is made with `sample_data.py --as_dump --base_url http://127.0.0.1:8000/files`.
"""

from __future__ import annotations

import argparse
import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, *words: object) -> None:
        pass


@contextlib.contextmanager
def serving_pictures(folder: Path, port: int = 0) -> Iterator[str]:
    """Serve what is, or will be, in a folder. Gives the base address: …/i.redd.it/NAME.jpg and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def flags(url: str) -> list[str]:
    """The flags with which download_images.py asks this server in place of the hosts."""
    hosts = {"redd": "i.redd.it", "preview": "i.redd.it", "imgur": "i.imgur.com", "album": "albums", "reddit": "posts"}
    return [word for name, host in hosts.items() for word in (f"--{name}_url", f"{url}/{host}")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    with serving_pictures(args.folder, args.port) as url, contextlib.suppress(KeyboardInterrupt):
        print(" ".join(flags(url)), flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
