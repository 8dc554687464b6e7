"""Pictures a second from files to a store, beside a plain loop, and beside what model and decoding alone allow.

The plain loop opens with PIL, prepares as the model's own transform does, and runs the model eagerly in float32, 32 at
a time: timm's network for `lite`, open_clip's for `clip:`. It has a process of its own, and its answers are the
reference of the cosines. Plain loop, pipeline, model alone and decoding alone take turns; each rate is the median of
the rounds. Without a file of weights `clip:ViT-B-32` has random ones, which cost the same. Run on idle cores, e.g.

python benchmarks/speed_pipeline.py --encoder lite --encoder lite:fast --out benchmarks/results/speed_pipeline.json
"""

import argparse
import json
import logging
import math
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import open_clip
import timm
import torch
from PIL import Image

from fewshot.arrays import to_tensor, unit
from fewshot.build import update
from fewshot.embedding import stream
from fewshot.encoders import Encoder, conse, lite_image, lite_text, load_encoder
from fewshot.images import memory_kept, read_file
from fewshot.provenance import versions
from fewshot.store import Store

LARGE = 6_000_000  # pixels
ARCH = "ViT-B-32"
Plain = tuple[Callable[[Image.Image], torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]  # prepare, encode


def plain_lite() -> Plain:
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    state = torch.load(lite_image.weight_file(), map_location="cpu", weights_only=True)
    net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
    net.eval()
    bridge = conse.load(lite_text.load(torch.device("cpu")), lite_text.SHA256)

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        features = net.forward_head(net.forward_features(pixels), pre_logits=True)
        places = bridge.place_images(net.classifier(features))
        return torch.cat([unit(features) * math.sqrt(0.9), places * math.sqrt(0.1)], -1)

    return lambda image: lite_image.prepare(image).contiguous() / 127.5 - 1, encode


def plain_clip(weights: Path) -> Plain:
    model, preprocess = open_clip.create_model_from_pretrained(ARCH, str(weights))
    model.eval()
    return preprocess, lambda pixels: unit(model.encode_image(pixels))


def start_plain(weights: Path | None, threads: int) -> None:
    """Load the plain loop's model into a process of its own, where nothing else is loaded."""
    logging.disable(logging.WARNING)  # open_clip warns that the weights are random
    torch.set_num_threads(threads)
    global PLAIN
    PLAIN = plain_clip(weights) if weights else plain_lite()


def plain_loop(paths: list[Path]) -> tuple[float, np.ndarray]:
    """Return seconds and embeddings."""
    prepare, encode = PLAIN
    rows, start = [], time.perf_counter()
    for first in range(0, len(paths), 32):
        opened = [Image.open(path).convert("RGB") for path in paths[first : first + 32]]
        with torch.inference_mode():
            rows.append(encode(torch.stack([prepare(image) for image in opened])))
    return time.perf_counter() - start, torch.cat(rows).numpy()


def enlarge(paths: list[Path], folder: Path) -> list[Path]:
    made = []
    for number, path in enumerate(paths):
        image = Image.open(path).convert("RGB")
        scale = math.sqrt(LARGE / (image.width * image.height))
        size = round(image.width * scale), round(image.height * scale)
        made.append(folder / f"{number:04}.jpg")
        image.resize(size, Image.Resampling.LANCZOS).save(made[-1], quality=90)
    return made


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class Pipeline:
    """One encoder with the pictures it is measured on: from files to store, the model alone, decoding alone."""

    def __init__(self, encoder: Encoder, paths: list[Path], workers: int) -> None:
        self.encoder, self.paths, self.workers = encoder, paths, workers
        self.pixels = torch.stack([self.decode(path) for path in paths[:64]]).split(32)
        list(stream(encoder, paths[:32]))  # what is done once is done here

    def decode(self, path: Path) -> torch.Tensor:
        return self.encoder.prepare_source(read_file(path))

    def round(self) -> dict[str, float]:
        model = sum(map(len, self.pixels)) / seconds(lambda: [self.encoder.encode_prepared(x) for x in self.pixels])
        with memory_kept(self.workers), ThreadPoolExecutor(self.workers) as pool:
            decoding = len(self.paths) / seconds(lambda: list(pool.map(self.decode, self.paths)))
        return {"images_per_s": self.build(), "model_alone_per_s": model, "decoding_alone_per_s": decoding}

    def build(self) -> float:
        encoder = self.encoder
        with tempfile.TemporaryDirectory() as folder:
            listed = Path(folder) / "photos"
            listed.mkdir()
            for number, path in enumerate(self.paths):
                os.symlink(path.resolve(), listed / f"{number:05}.jpg")
            about = {"encoder": encoder.name, "fingerprint": encoder.fingerprint, "dim": encoder.dim}
            with Store.create(Path(folder) / "index", **about) as store:
                taken = seconds(lambda: update(store, [listed], encoder=encoder))
                self.found = to_tensor(store.embeddings()[[entry.row for entry in store.entries()]])
        return len(self.paths) / taken


def measure(names: list[str], plain: Executor, paths: list[Path], workers: int, rounds: int) -> list[dict[str, object]]:
    pipelines = {name: Pipeline(load_encoder(name, "cpu"), paths, workers) for name in names}
    plain.submit(plain_loop, paths[:32]).result()
    reference, loops, found = torch.empty(0), [], {name: [] for name in names}
    for _ in range(rounds):
        taken, rows_of_loop = plain.submit(plain_loop, paths).result()
        reference = torch.from_numpy(rows_of_loop)
        loops.append(len(paths) / taken)
        for name, pipeline in pipelines.items():
            found[name].append(pipeline.round())
    rows = []
    for name, pipeline in pipelines.items():
        rates = {key: statistics.median(each[key] for each in found[name]) for key in found[name][0]}
        times = [each["images_per_s"] / loop for each, loop in zip(found[name], loops, strict=True)]
        allowed = [1 / (1 / each["model_alone_per_s"] + 1 / each["decoding_alone_per_s"]) for each in found[name]]
        shares = [each["images_per_s"] / limit for each, limit in zip(found[name], allowed, strict=True)]
        cosine = (pipeline.found * reference).sum(-1)
        rows.append(
            {
                "encoder": name.partition("@")[0],
                "fingerprint": pipeline.encoder.fingerprint,
                "n": len(paths),
                **rates,
                "plain_per_s": statistics.median(loops),
                "times_plain": statistics.median(times),
                "times_plain_rounds": times,
                "of_allowed": statistics.median(shares),
                "of_allowed_rounds": shares,
                "cosine_min": float(cosine.min()),
                "cosine_p1": float(cosine.quantile(0.01)),  # the first percentile
                "cosine_mean": float(cosine.mean()),
                "cosine_share_above_0.9999": float((cosine >= 0.9999).float().mean()),
            }
        )
    return rows


def processor() -> dict[str, object]:
    """Name the processor and what it has for bfloat16, as Linux tells."""
    lines = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    about = {key.strip(): value.strip() for key, value in lines.items()}
    flags = [flag for flag in about["flags"].split() if "bf16" in flag or flag.startswith("amx")]
    return {"name": about["model name"], "cores": os.cpu_count(), "bfloat16_flags": flags}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", action="append", help="lite, lite:fast, clip:ViT-B-32 ...; repeatable")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FEWSHOT_DATA", "../shared/data")))
    parser.add_argument("--count", type=int, default=256, help="ordinary pictures")
    parser.add_argument("--large", type=int, default=96, help="pictures enlarged to 6 megapixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep the enlarged pictures here")
    parser.add_argument("--out", type=Path, help="rows are added to those that are there")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    every = sorted((given.data / "caltech101" / "images").rglob("*.jpg"))
    ordinary = every[:: len(every) // given.count][: given.count]
    names = given.encoder or ["lite", "lite:fast"]
    rows = json.loads(given.out.read_text())["rows"] if given.out and given.out.is_file() else []
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch) / "large"
        folder.mkdir(exist_ok=True)
        large = sorted(folder.glob("*.jpg"))[: given.large] or enlarge(ordinary[: given.large], folder)
        weights = None
        if names[0].startswith("clip"):
            logging.disable(logging.WARNING)  # it warns that the weights are random
            torch.manual_seed(0)
            weights = Path(scratch) / "random.pt"
            torch.save(open_clip.create_model(ARCH).state_dict(), weights)
            names = [f"{name}@{weights}" for name in names]
        own = multiprocessing.get_context("spawn")
        plain = ProcessPoolExecutor(1, own, start_plain, (weights, given.threads))
        for kind, paths in (("ordinary", ordinary), ("large", large)):
            for row in measure(names, plain, paths, given.threads, given.rounds):
                there = {package: find_spec(package) is not None for package in ("openvino", "onnxruntime")}
                rows.append({"pictures": kind, **there, **row})
                print(
                    f"{kind:9} {row['encoder']:10} {row['images_per_s']:6.1f}/s, {row['times_plain']:.2f} x "
                    f"{row['plain_per_s']:.1f}/s plain, {row['of_allowed']:.0%} of model "
                    f"{row['model_alone_per_s']:.0f}/s and decoding {row['decoding_alone_per_s']:.0f}/s; "
                    f"cosine min {row['cosine_min']:.6f} p1 {row['cosine_p1']:.6f} mean {row['cosine_mean']:.6f}",
                    flush=True,
                )
            if given.out:
                given.out.write_text(json.dumps(result(rows, given.rounds, given.threads), indent=2) + "\n")


def result(rows: list[dict[str, object]], rounds: int, threads: int) -> dict[str, object]:
    return {
        "benchmark": "speed_pipeline",
        "rows": rows,
        "rounds": rounds,
        "threads": threads,
        "versions": versions(),
        "machine": f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "processor": processor(),
        "load": [round(v, 2) for v in os.getloadavg()],  # at the end; the threads of the benchmark are among it
    }


if __name__ == "__main__":
    main()
