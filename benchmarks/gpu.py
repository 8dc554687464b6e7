"""What a GPU gives: search, encoders from files to a store, episodes and large fits, each beside the same on the CPU.

python benchmarks/gpu.py --photographs FOLDER --out benchmarks/results/gpu.json [--only search,pipeline,episodes,fits]

Search: the index of a store on the GPU, 512-d clusters, beside the CPU's cores (in torch for batches: there the
flat FAISS that was tried, with an OpenBLAS of its own threads, took 24 times as long as torch). Pipeline: the ordinary
pictures are cuts from those of FOLDER, no two alike; of the large ones 128 are the same enlarged to 6 megapixels, and
the others are those again with a number behind the picture. From files to the commit of the last embedding, beside
the model alone (prepared batches, from the CPU's memory and back) and reading and decoding alone as the pipeline does
it, each in turn; medians of the rounds. The first seconds, in which processes that decode start, are part of it; the
pace of the second half, without them, is told beside. Episodes: the whole evaluation. Fits: one task of 1,000 classes
x 16 shots x 512-d.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from speed_bench import make_data
from speed_large import large_task
from speed_pipeline import Pipeline, enlarge, seconds
from speed_search import DIM, clusters

from fewshot.build import Counts, embed_here, update
from fewshot.drawing import draw
from fewshot.embedding import GPU_BATCH, stream
from fewshot.encoders import Encoder, load_encoder
from fewshot.episodes import EpisodeSpec
from fewshot.evaluate import evaluate
from fewshot.gpu_rows import GpuRows
from fewshot.index import Index
from fewshot.index_plan import Wanted, plan, want
from fewshot.provenance import versions
from fewshot.reading import cores, load_ahead, stacked
from fewshot.registry import registry
from fewshot.scan import BLOCK, load_faiss
from fewshot.store import Store
from fewshot.strategy import fit

Found = dict[str, object]
SOLVED = ["prototypical", "ridge", "gda", "linear_probe", "laplacian_shot", "tim"]
DISTINCT = 128  # large pictures
FITTED = ["prototypical", "ridge", "linear_probe", "auto", "cross_modal", "lp_plus_plus"]


def median_seconds(work: Callable[[], object], rounds: int) -> float:
    work()
    taken = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def search(given: argparse.Namespace) -> Iterator[Found]:
    """The index on the GPU beside the CPU: products and topk in torch for batches, flat FAISS for one query."""
    for count in given.rows:
        rows, queries = clusters(count)
        asked, parts = torch.from_numpy(queries), torch.from_numpy(rows).split(BLOCK)
        alive, wanted = np.ones(count, bool), Wanted("exact")
        facts = Index.build(rows, alive, plan(wanted, count, DIM), wanted).facts
        flat = load_faiss().IndexFlatIP(DIM)
        flat.add(rows)

        def product(asked: torch.Tensor = asked, parts: tuple[torch.Tensor, ...] = parts) -> torch.Tensor:
            best = [(asked @ part.T).topk(10) for part in parts]
            scores = torch.cat([b.values for b in best], 1).topk(10)
            ids = torch.cat([b.indices + i * BLOCK for i, b in enumerate(best)], 1)
            return ids.gather(1, scores.indices)

        begin = time.perf_counter()
        gpu = Index(rows, alive, None, facts, GpuRows.make(rows))
        copied = time.perf_counter() - begin
        found, truth = gpu.search(asked, 10)[1], product().numpy()
        one, ones = queries[:1], asked[:1]
        times = {
            "torch_batch_s": median_seconds(product, 3),
            "gpu_batch_s": median_seconds(lambda gpu=gpu, asked=asked: gpu.search(asked, 10), 9),
            "faiss_single_s": median_seconds(lambda flat=flat, one=one: flat.search(one, 10), 20),
            "gpu_single_s": median_seconds(lambda gpu=gpu, ones=ones: gpu.search(ones, 10), 50),
        }
        yield (
            {
                "rows": count,
                "to_gpu_s": copied,
                **times,
                "times_batch": times["torch_batch_s"] / times["gpu_batch_s"],
                "times_single": times["faiss_single_s"] / times["gpu_single_s"],
                "recall@10": float(np.mean([np.isin(t, f).mean() for f, t in zip(found, truth, strict=True)])),
            }
        )


def cut(job: tuple[Path, int, Path]) -> Path:
    """Save a cut of a picture, another one for each number."""
    path, number, folder = job
    image = Image.open(path).convert("RGB")
    x, y = number % 12, number // 12
    made = folder / f"{path.stem}-{number:02}.jpg"
    image.crop((x, y, image.width - 12 + x, image.height - 12 + y)).save(made, quality=90)
    return made


def enlarged(job: tuple[Path, Path]) -> Path:
    return enlarge([job[0]], job[1])[0].rename(job[1] / f"large-{job[0].stem}.jpg")


def again(job: tuple[Path, int, Path]) -> Path:
    """Save a picture once more, with a number behind it, so that it is another file to the store."""
    path, number, folder = job
    made = folder / f"{path.parent.name}-{number:05}.jpg"
    made.write_bytes(path.read_bytes() + number.to_bytes(4, "big"))
    return made


class Pace:
    """Counts pictures, and tells how many a second there were, in all and in the second half."""

    def __init__(self, total: int) -> None:
        self.total, self.begin = total, time.perf_counter()
        self.marks = [(0, self.begin)]

    def count(self, more: int) -> None:
        self.marks.append((self.marks[-1][0] + more, time.perf_counter()))

    def rates(self, name: str) -> dict[str, float]:
        (done, end), (half, middle) = self.marks[-1], next(m for m in self.marks if m[0] >= self.total / 2)
        return {f"{name}_per_s": done / (end - self.begin), f"{name}_second_half_per_s": (done - half) / (end - middle)}


class PacedEngine:
    """Embeds as `fewshot index build` does, and counts what is in the store."""

    def __init__(self, total: int) -> None:
        self.pace = Pace(total)

    def __call__(self, store: Store, encoder: Encoder, counts: Counts, batch: int | None, total: int | None) -> None:
        self.pace, append = Pace(self.pace.total), store.append

        def counted(digests: Sequence[str], vectors: NDArray[np.float32]) -> None:
            append(digests, vectors)
            self.pace.count(len(digests))

        store.append = counted  # type: ignore[method-assign]
        embed_here(store, encoder, counts, batch, total)
        self.pace.count(0)  # with the last commit


class OnGpu(Pipeline):
    """As on a CPU, with the batches that a GPU gets."""

    def __init__(self, encoder: Encoder, paths: list[Path], workers: int) -> None:
        self.encoder, self.paths, self.workers = encoder, paths, workers
        with ThreadPoolExecutor(workers) as pool:
            prepared = stacked([*pool.map(self.decode, paths[:GPU_BATCH])], pinned=True)
        self.pixels = [prepared] * 32
        list(stream(encoder, paths[:GPU_BATCH]))
        self.model_alone()

    def model_alone(self) -> float:
        return sum(map(len, self.pixels)) / seconds(lambda: [self.encoder.encode_prepared(x) for x in self.pixels])

    def round(self) -> dict[str, float]:
        model = self.model_alone()
        reading = Pace(len(self.paths))
        paths = map(str, self.paths)
        for _ in load_ahead(self.encoder, paths, lambda _: (), None, 2 * GPU_BATCH, len(self.paths)):
            reading.count(1)
        building = self.build_at_pace()
        return {**building.rates("images"), "model_alone_per_s": model, **reading.rates("decoding_alone")}

    def build_at_pace(self) -> Pace:
        encoder, engine = self.encoder, PacedEngine(len(self.paths))
        with tempfile.TemporaryDirectory() as folder:
            listed = Path(folder) / "photos"
            listed.mkdir()
            for number, path in enumerate(self.paths):
                (listed / f"{number:05}.jpg").symlink_to(path)
            about = {"encoder": encoder.name, "fingerprint": encoder.fingerprint, "dim": encoder.dim}
            with Store.create(Path(folder) / "index", **about) as store:
                want(store, Wanted("exact"))  # which is not built
                update(store, [listed], encoder=encoder, engine=engine)
        return engine.pace


def pipeline(given: argparse.Namespace) -> Iterator[Found]:
    """From files to a store, the model alone, decoding alone."""
    import open_clip

    workers = cores()
    photographs = sorted(given.photographs.rglob("*.jpg"))
    with tempfile.TemporaryDirectory() as scratch, ProcessPoolExecutor(workers) as pool:
        folder = Path(scratch)
        jobs = [(photographs[i % len(photographs)], i // len(photographs), folder) for i in range(given.count)]
        ordinary = list(pool.map(cut, jobs, chunksize=64))
        jobs = [(ordinary[i], folder / f"{i}") for i in range(min(given.large, DISTINCT))]
        for _, place in jobs:
            place.mkdir()
        large = [*pool.map(enlarged, jobs)]
        large += pool.map(again, [(large[i % DISTINCT], i, folder) for i in range(DISTINCT, given.large)], chunksize=8)
        sizes = {"ordinary": ordinary, "large": large}
        logging.disable(logging.WARNING)  # it warns that the weights are random
        torch.manual_seed(0)
        weights = folder / "random.pt"
        torch.save(open_clip.create_model("ViT-B-32").state_dict(), weights)
        for name in given.encoder:
            spec = f"{name}@{weights}" if name.startswith("clip") else name
            encoder = load_encoder(spec, "cuda")
            for size, paths in sizes.items():
                torch.cuda.reset_peak_memory_stats()
                each = OnGpu(encoder, paths, workers)
                rounds = [each.round() for _ in range(given.rounds)]
                row: Found = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
                for part in ("", "_second_half"):
                    shares = [
                        r[f"images{part}_per_s"] / min(r["model_alone_per_s"], r[f"decoding_alone{part}_per_s"])
                        for r in rounds
                    ]
                    row |= {f"of_the_slower{part}": statistics.median(shares), f"of_the_slower{part}_rounds": shares}
                row |= {"gpu_peak_mb": torch.cuda.max_memory_allocated() / 1e6}
                yield {"pictures": size, "n": len(paths), "encoder": name, **row}


def episodes(given: argparse.Namespace) -> Iterator[Found]:
    """Draw and score 10,000 episodes, 5-way, on both."""
    data = make_data()
    for shot in (1, 5):
        drawn, few = (
            draw(EpisodeSpec(way=5, shot=shot, query=15, episodes=count, seed=0), data.labels)
            for count in (given.episodes, 64)
        )
        for name in SOLVED:
            found: Found = {"strategy": name, "shot": shot}
            accuracy = {}
            for place, block in (("cpu", 64), ("cuda", given.block)):
                strategy = registry().strategy(name)()
                evaluate(strategy, data, few, device=place)
                begin = time.perf_counter()
                result = evaluate(strategy, data, drawn, device=place, block=block)
                found[f"{place}_per_s"] = given.episodes / (time.perf_counter() - begin)
                accuracy[place] = result.metrics["accuracy"].mean
            yield {**found, "accuracy": accuracy}


def fits(given: argparse.Namespace) -> Iterator[Found]:
    """Fit one large task, on both."""
    for name in FITTED:
        task, strategy, found, logits = large_task(name), registry().strategy(name)(), {}, {}
        fit(strategy, task.to("cuda"))  # what is done once is done here
        for place in ("cpu", "cuda"):
            here = task.to(place)
            torch.cuda.synchronize()
            begin = time.perf_counter()
            head = fit(strategy, here)
            torch.cuda.synchronize()
            found[f"{place}_s"] = time.perf_counter() - begin
            logits[place] = head.logits(here.support[:2000]).float().cpu()
        gap = float((logits["cpu"] - logits["cuda"]).abs().max() / logits["cpu"].abs().max())
        same = float((logits["cpu"].argmax(-1) == logits["cuda"].argmax(-1)).float().mean())
        yield {"strategy": name, **found, "largest_difference": gap, "same_class": same}


def table(found: Found) -> str:
    """The measurements as Markdown."""
    lines = ["# What a GPU gives", "", f"{found['gpu']}, {found['cores']} cores; versions {found['versions']}.", ""]
    lines += ["Made by `python benchmarks/gpu.py`, whose head says how.", *found.get("notes", []), ""]  # type: ignore[misc]
    for part in PARTS:
        rows = found.get(part)
        if isinstance(rows, list) and rows:
            lines += [f"## {part}", "", "| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
            lines += ["| " + " | ".join(map(cell, row.values())) + " |" for row in rows] + [""]
    return "\n".join(lines)


def cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {cell(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


PARTS = {"search": search, "pipeline": pipeline, "episodes": episodes, "fits": fits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True, help="JPEG pictures, in any folders")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--encoder", nargs="+", default=["lite", "lite:fast", "clip:ViT-B-32", "clip:bf16:ViT-B-32"])
    parser.add_argument("--count", type=int, default=40960, help="ordinary pictures")
    parser.add_argument("--large", type=int, default=2560, help="pictures enlarged to 6 megapixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--block", type=int, default=512, help="episodes a GPU solves at once")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    result = json.loads(given.out.read_text()) if given.out and given.out.is_file() else {}
    result |= {
        "benchmark": "gpu",
        "gpu": torch.cuda.get_device_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "versions": versions() | {"faiss": load_faiss().__version__, "cuda": torch.version.cuda},
    }
    for part in given.only.split(","):
        rows = result[part] = []
        for row in PARTS[part](given):
            rows.append(row)
            print(row, flush=True)
            if given.out:
                given.out.write_text(json.dumps(result, indent=2) + "\n")
                given.out.with_suffix(".md").write_text(table(result))


if __name__ == "__main__":
    main()
