"""Many small files: seconds and peak memory of a first build, of one over unchanged files, and of adding one file.

Every figure comes from a process of its own, with the `toy` encoder. "embedding" leaves out the search index, which is
in memory while it is made.

python benchmarks/speed_store.py --files 10000 --files 100000 --out benchmarks/results/speed_store.json
"""

import argparse
import json
import platform
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

JOBS = {
    "embedding": "build.refresh_index = lambda store: None\nbuild.build_index([photos], out, encoder='toy')",
    "index": "build.build_index([photos], out)",
    "unchanged": "build.build_index([photos], out)",
    "add one": "store = Store.open(out, write=True); build.update(store, [one]); store.close()",
}
CHILD = """
import json, resource, sys, time
from fewshot import build
from fewshot.store import Store
import fewshot.embedding, fewshot.index
photos, out, one = sys.argv[1:4]
start = time.perf_counter()
{job}
seconds = time.perf_counter() - start
print(json.dumps({{"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}}))
"""


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_picture(path: Path, number: int) -> None:
    """Write a PNG of 2 x 2 pixels that no other number has."""
    rows = b"".join(b"\0" + number.to_bytes(4, "big") + bytes([row, 128]) for row in (0, 1))
    header = struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, action="append")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows = []
    for count in given.files or [10_000, 100_000]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for number in range(count):
                below = folder / "photos" / f"{number // 1000:03}"
                if number % 1000 == 0:
                    below.mkdir(parents=True)
                write_picture(below / f"{number:07}.png", number)
            write_picture(folder / "one.png", count)
            for job, code in JOBS.items():
                arguments = [str(folder / part) for part in ("photos", "index", "one.png")]
                start = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, "-c", CHILD.format(job=code), *arguments],
                    check=True,
                    stdout=subprocess.PIPE,
                )
                found = {**json.loads(done.stdout), "with_start_s": time.perf_counter() - start}
                rows.append({"files": count, "job": job, **found})
                print(
                    f"{count:7} {job:10} {found['seconds']:7.2f} s ({found['with_start_s']:.1f} s with the start), "
                    f"peak {found['peak_mb']:.0f} MB",
                    flush=True,
                )
    result = {"benchmark": "speed_store", "rows": rows, "machine": f"{platform.system()} {platform.machine()}"}
    result["python"] = platform.python_version()
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
