"""SQLite's write-ahead log: whether all that was committed to it can be read, and how it is mended.

SQLite reads a log up to the first frame whose checksum is wrong, as where a write was cut short, and takes what follows
for nothing. A flipped bit would so undo every later change, without a word. But the checksums go on: that of a frame
begins where that of the frame before ends, as it stands there. Therefore frames behind a damaged one are known, and a
change that ends among them was committed. See https://www.sqlite.org/fileformat2.html#the_write_ahead_log.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

PAGE = 4096  # bytes of a page, SQLite's choice since 3.12
HEADER, FRAME = 32, 24  # bytes; a frame's are before its page
STEP = FRAME + PAGE
MAGIC = {"<": 0x377F0682, ">": 0x377F0683}  # how a log begins, by the order of bytes in what is added up
VERSION = 3007000
BLOCK = 256  # frames looked at at a time, which bounds memory
PAUSE = 0.05  # seconds; what changes meanwhile is being written

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint32]


class Log(NamedTuple):
    """How far a log goes."""

    read: int  # frames up to the end of the last change that SQLite reads
    committed: int  # frames up to the end of the last change that was committed
    pages: int  # of the database after that one, or 0


class Header(NamedTuple):
    """What a log's first bytes say, or else its first frames."""

    sound: bool  # whether their checksum is right; SQLite reads nothing if not
    order: str  # of bytes in what is added up, "<" or ">"
    salt: Bytes  # [8], other ones each time the log begins anew; frames with others are of an earlier one
    starts: Words  # [1 or 2, 2] checksum that the first frame's goes on from; either, if not sound


def log_damaged(file: Path) -> bool:
    """Tell whether a log holds changes that SQLite does not read; it must not be opened for writing then."""
    before = None
    while True:
        stamp, log = _stamp(file), read_log(file)
        if log.committed == log.read:
            return False
        if stamp == before:  # nobody is writing it
            return True
        before = stamp
        time.sleep(PAUSE)


def read_log(file: Path) -> Log:
    """Look how far a log goes; nowhere where there is none, or none that may be read, of which SQLite will tell."""
    try:
        with open(file, "rb") as content:
            return _read(content)
    except OSError:
        return Log(0, 0, 0)


def mend_log(file: Path) -> None:
    """Put a log's checksums right as far as changes were committed, so that SQLite reads it, damage and all."""
    log = read_log(file)
    if log.committed == log.read:
        return
    with open(file, "r+b") as content:
        header = _header(content)
        assert header is not None
        head = np.zeros((1, HEADER), np.uint8)
        head[0, :12] = np.array([MAGIC[header.order], VERSION, PAGE], ">u4").view(np.uint8)
        head[0, 16:24] = header.salt
        state = _added(head[:, :24], header.order, np.zeros((1, 2), np.uint32))
        head[:, 24:] = state.astype(">u4").view(np.uint8)
        content.seek(0)
        content.write(head.tobytes())
        for _ in range(log.committed):
            frame = np.frombuffer(content.read(STEP), np.uint8).copy()[None]
            frame[0, 8:16] = header.salt
            state = _added(_covered(frame), header.order, state)
            frame[:, 16:24] = state.astype(">u4").view(np.uint8)
            content.seek(-STEP, 1)
            content.write(frame.tobytes())
        content.truncate()


def _read(content: BinaryIO) -> Log:
    header, read, committed, pages = _header(content), 0, 0, 0
    if header is None:
        return Log(0, 0, 0)
    whole = header.sound
    for at, (good, ours, end, last) in enumerate(_frames(content, header), 1):
        if not (good or ours):  # of an earlier log, whose place this one takes
            break
        whole &= good and ours
        if end and (good or last):  # a damaged frame at the very end of the file was written whole
            committed, pages = at, end
            read = at if whole else read
    return Log(read, committed, pages)


def _header(content: BinaryIO) -> Header | None:
    """Read what comes before the frames; None where there is no frame."""
    data = np.frombuffer(content.read(HEADER + 2 * STEP), np.uint8)
    content.seek(HEADER)
    if len(data) < HEADER + STEP:
        return None
    head, zero = data[None, :HEADER], np.zeros((1, 2), np.uint32)
    for order in "<>":
        if (_added(head[:, :24], order, zero) == _words(head[:, 24:], ">")[:, 0]).all():
            return Header(True, order, head[0, 16:24], _words(head[:, 24:], ">")[:, 0])
    order = "<" if sys.byteorder == "little" else ">"
    salts = data[HEADER:][: len(data[HEADER:]) // STEP * STEP].reshape(-1, STEP)[:, 8:16]
    starts = np.concatenate([_words(head[:, 24:], ">")[:, 0], _added(head[:, :24], order, zero)])
    return Header(False, order, salts[0] if (salts[0] == salts[-1]).all() else head[0, 16:24], starts)


def _frames(content: BinaryIO, header: Header) -> Iterator[tuple[bool, bool, int, bool]]:
    """Tell of each whole frame whether its checksum goes on from the one before, and whether it has the log's salt.

    Also of how many pages the database is if a change ends with it, otherwise 0, and whether it is the end of the file.
    """
    before = header.starts
    data = content.read(BLOCK * STEP)
    while data:
        ahead = content.read(BLOCK * STEP)
        frames = np.frombuffer(data, np.uint8)[: len(data) // STEP * STEP].reshape(-1, STEP)
        stored = _words(frames[:, 16:24], ">")[:, 0]
        covered = _covered(frames)
        good = np.zeros(len(frames), bool)
        good[:1] = any((_added(covered[:1], header.order, start[None]) == stored[:1]).all() for start in before)
        good[1:] = (_added(covered[1:], header.order, stored[:-1]) == stored[1:]).all(1)
        ours = (frames[:, 8:16] == header.salt).all(1)
        ends = _words(frames[:, :8], ">")[:, 0, 1].tolist()
        last = [False] * (len(frames) - 1) + [not ahead and len(data) % STEP == 0]
        yield from zip(good.tolist(), ours.tolist(), ends, last, strict=True)
        before, data = stored[-1:], ahead


def _covered(frames: Bytes) -> Bytes:
    """Return what the checksums of frames cover: a few bytes and the page.  [n, STEP] -> [n, 8 + PAGE]"""
    return np.concatenate([frames[:, :8], frames[:, FRAME:]], axis=1)


def _words(data: Bytes, order: str) -> Words:
    """Return bytes as pairs of words.  [n, 8 m] -> [n, m, 2]"""
    return np.ascontiguousarray(data).view(order + "u4").astype(np.uint32).reshape(len(data), -1, 2)


def _added(data: Bytes, order: str, state: Words) -> Words:
    """Add pairs of words a, b to checksums s, t: s += a + t, then t += b + s, modulo 2^32.  [n, 8 m], [n, 2] -> [n, 2]

    That is linear: each pair counts as (a, a + b) times a power of the matrix ((1, 1), (1, 2)).
    """
    pairs = _words(data, order)
    pairs[..., 1] += pairs[..., 0]
    powers = POWERS[pairs.shape[1] :: -1]
    total: Words = np.einsum("ij,nj->ni", powers[0], state) + np.einsum("mij,nmj->ni", powers[1:], pairs)
    return total


def _powers(count: int) -> Words:
    """Return the powers of ((1, 1), (1, 2)), modulo 2^32.  -> [count + 1, 2, 2]"""
    powers, step = np.empty((count + 1, 2, 2), np.uint32), np.array([[1, 1], [1, 2]], np.uint32)
    powers[0] = np.eye(2)
    for i in range(count):
        powers[i + 1] = powers[i] @ step
    return powers


def _stamp(file: Path) -> tuple[int, int]:
    try:
        info = file.stat()
    except OSError:
        return 0, 0
    return info.st_size, info.st_mtime_ns


POWERS = _powers((8 + PAGE) // 8)
