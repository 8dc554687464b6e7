"""How soon the processes that decode for a GPU are ready, and their memory, with the network's packages or without.

python benchmarks/speed_decoders.py --out benchmarks/results/speed_decoders.json [--processes 16] [--rounds 3]

`clip` prepares pictures by torchvision's steps, as open_clip makes them, or by `ScaledCentre`, which does the same
without either package; in turn, medians. No GPU is needed. Memory is the sum of what each process has to itself and
its part of what they share (PSS).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from torchvision.transforms import Compose, PILToTensor

from fewshot.decoders import Decoders
from fewshot.encoders import Encoder, load_encoder
from fewshot.encoders.preprocessing import Preprocessing
from fewshot.provenance import versions
from fewshot.reading import cores, load_hashed

ARCH = "ViT-B-32"


def by_torchvision(encoder: Encoder) -> Encoder:
    """Have the encoder prepare pictures by the steps that open_clip makes."""
    steps = open_clip.image_transform(224, is_train=False).transforms[:-2]
    known: Preprocessing = encoder._preprocessing  # type: ignore[attr-defined]
    encoder._preprocessing = Preprocessing(  # type: ignore[attr-defined]
        Compose([*steps, PILToTensor()]), known.mean, known.deviation
    )
    return encoder


def memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000


def measure(encoder: Encoder, processes: int) -> dict[str, float]:
    begin = time.perf_counter()

    def wait(enough: Callable[[], bool]) -> float:
        while not enough():
            time.sleep(0.01)
        return time.perf_counter() - begin

    with Decoders(load_hashed, encoder, processes) as decoders:
        first = wait(lambda: bool(decoders.pids))
        every = wait(lambda: len(decoders.pids) == processes)
        memory = sum(map(memory_mb, decoders.pids))
    return {"first_s": first, "all_s": every, "memory_mb": memory}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / "random.pt"
        torch.manual_seed(0)
        torch.save(open_clip.create_model(ARCH).state_dict(), weights)
        name = f"clip:{ARCH}@{weights}"
        encoders = {
            "lite": load_encoder("lite", "cpu"),
            "clip, by torchvision": by_torchvision(load_encoder(name, "cpu")),
            "clip": load_encoder(name, "cpu"),
        }
    rounds = [{n: measure(e, given.processes) for n, e in encoders.items()} for _ in range(given.rounds)]
    found = {n: {key: statistics.median(r[n][key] for r in rounds) for key in rounds[0][n]} for n in encoders}
    about = {"processes": given.processes, "rounds": given.rounds, "cores": cores(), "versions": versions()}
    given.out.write_text(json.dumps({"benchmark": "speed_decoders", **about, "encoders": found}, indent=2) + "\n")
    for encoder, row in found.items():
        print(encoder, {key: round(value, 2) for key, value in row.items()})


if __name__ == "__main__":
    main()
