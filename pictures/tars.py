"""The members of a tar by name, with their offsets, without unpacking any.

Handles tars joined by `cat`, members that link to others, and several members of one name, of which the last counts, as
if the tar were unpacked.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

BLOCK = tarfile.BLOCKSIZE


class Member(NamedTuple):
    """A file in a tar: `size` bytes from `offset` on. Of a link to another member these are that one's; what cannot be
    read has a `fault`."""

    name: str
    offset: int = 0
    size: int = 0
    fault: str = ""


def members(file: BinaryIO, replaced: Callable[[str], None]) -> Iterator[Member]:
    """An open tar's files, in their order; `replaced` is told the name of each that a later one takes the place of.

    Raises tarfile.TarError or OSError behind the last whole member of a damaged tar.
    """
    found, links, damage = {}, {}, None
    try:
        for member in _headers(file):
            if member.isreg():
                if found.pop(member.name, None) is not None:
                    replaced(member.name)
                links.pop(member.name, None)
                fault = "a sparse file, which is not read" if member.issparse() else ""
                found[member.name] = Member(member.name, member.offset_data, member.size, fault)
            elif member.islnk() or member.issym():
                if member.name in found or member.name in links:
                    replaced(member.name)
                    found.pop(member.name, None)
                links[member.name] = _target(member)
                found[member.name] = Member(member.name)
            elif member.isdev():
                found[member.name] = Member(member.name, fault="a device or a pipe, which is never opened")
            elif member.type == b"M":
                found[member.name] = Member(member.name, fault="the rest of a file that begins in another tar")
    except (OSError, EOFError, tarfile.TarError) as error:  # what lies before the damage is whole
        damage = error
    for name, member in found.items():
        yield _resolved(name, found, links) if name in links else member
    if damage:
        raise damage


def _headers(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """All of a file's members, also of the tars that follow behind the end of the first."""
    file.seek(0)
    while True:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                tar.members = []  # else it keeps every member that it has passed
                yield member
            end = tar.offset  # tarfile stops at a damaged header without a word
        file.seek(end)
        if file.read(BLOCK) != bytes(BLOCK):
            raise tarfile.ReadError(f"no header and no end at byte {end:,}")
        if not _to_next(file):
            return


def _to_next(file: BinaryIO) -> bool:
    """Pass over empty blocks; whether anything follows, at which the file then stands."""
    while block := file.read(256 * BLOCK):
        if rest := block.lstrip(b"\0"):
            file.seek((file.tell() - len(rest)) // BLOCK * BLOCK)
            return True
    return False


def _target(member: tarfile.TarInfo) -> str:
    """The name that a link means: a hard link's is from the tar's root, a symbolic one's from where the link lies."""
    folder = posixpath.dirname(member.name) if member.issym() else ""
    return posixpath.normpath(posixpath.join(folder, member.linkname))


def _resolved(name: str, found: dict[str, Member], links: dict[str, str]) -> Member:
    passed, target = {name}, links[name]
    while target in links and target not in passed:
        passed.add(target)
        target = links[target]
    member = found.get(target) or found.get(f"./{target}")
    if member is None or target in links:
        return Member(name, fault="a link to what is not in the tar")
    return member._replace(name=name)
