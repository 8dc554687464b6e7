"""Search by fewshot's kinds of index beside faiss.IndexFlatIP, and `find` beside a full scan, in one process.

python benchmarks/speed_search.py embed --cache DIR --photographs DATA
python benchmarks/speed_search.py prepare --cache DIR --rows 100000 --recall 0.999
python benchmarks/speed_search.py measure --cache DIR --rows 100000 --recall 0.999 --json results/speed_search_100k.json
python benchmarks/speed_search.py profile --cache DIR --rows 100000 --json results/speed_search_profile.json

Real data: `lite`'s embeddings of the photographs of five data sets, on their 512 principal directions. 1,000 of them
become queries and are in the index in no form. Where more rows are wanted than there are, further ones lie between a
real row and one of its ten nearest, with noise of the data's covariance (0.35 of the length) added: no two rows are
equal, and neighbours are dense, which is hard for an approximate index.
Clusters: 1,000 centres, and around each a normal cloud as wide as the distance to the centre.

Rounds alternate between the two sides; the ratio of a round compares neighbours in time; the median is reported.
A flat scan leaves nothing of ours in the processor's cache: `single` is one query just after it, `single, of 20 in a
row` the mean of 20 different ones on each side. `profile` takes a lone query to pieces, each just after a flat scan
(cold) and in a row (warm).
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from fewshot.codes import Codes
from fewshot.depth import first_depth
from fewshot.effort import looks
from fewshot.embed_items import embed_items
from fewshot.encoders import load_encoder
from fewshot.find import nearest_rows
from fewshot.index import Index
from fewshot.index_file import load, save
from fewshot.index_plan import Wanted, plan
from fewshot.provenance import peak_mb, versions
from fewshot.registry import registry
from fewshot.scan import inner_products, load_faiss
from fewshot.strategy import LinearHead

DIM, QUERIES, BLOCK = 512, 1000, 65536
FEW = 6_000  # hardly any rows
CLASSES, TOP, ROW = 20, 1000, 20
PHOTOGRAPHS = {  # data set -> its kind, and where it lies
    "caltech101": ("caltech101", "caltech101"),
    "clothing_small": ("table", "clothing_small/index.csv"),
    "grocery_fruit": ("grocery_fruit", "grocery_fruit"),
    "cifar_fs": ("cifar_fs", "cifar_fs"),
    "sign_digits": ("table", "sign_digits/index.csv"),
}


def embed(given: argparse.Namespace) -> None:
    """Embed all photographs there are, every split."""
    encoder, found = load_encoder("lite"), []
    for name, (kind, place) in PHOTOGRAPHS.items():
        items = registry().dataset(kind)().load(given.photographs / place)
        found.append(embed_items(name, items, encoder, cache=given.cache / "embedded", progress=True)[0].x)
    np.save(given.cache / "photographs.npy", torch.cat(found).numpy())


def real(file: Path, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows [rows, 512] and queries [1000, 512] from real embeddings."""
    random = torch.Generator().manual_seed(0)
    x = torch.from_numpy(np.load(file))  # [n, D]
    spectrum, directions = torch.linalg.eigh(x.T @ x)
    x = normalize(x @ directions[:, -DIM:])[torch.randperm(len(x), generator=random)]
    queries, x = x[:QUERIES], x[QUERIES:]
    near = torch.cat([(x[i : i + 1024] @ x.T).topk(11).indices[:, 1:] for i in range(0, len(x), 1024)])  # [n, 10]
    out = torch.empty(rows, DIM)
    out[: len(x)] = x[:rows]
    wide = spectrum[-DIM:].clamp_min(0).sqrt()
    for start in range(len(x), rows, BLOCK):
        count = min(BLOCK, rows - start)
        one = torch.randint(len(x), (count,), generator=random)
        other = near[one, torch.randint(10, (count,), generator=random)]
        noise = normalize(torch.randn(count, DIM, generator=random) * wide)
        between = torch.lerp(x[one], x[other], torch.rand(count, 1, generator=random))
        out[start : start + count] = normalize(between + 0.35 * noise)
    return out.numpy(), queries.numpy()


def clusters(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows [rows, 512] and queries [1000, 512] around 1,000 centres."""
    random = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(1000, DIM, generator=random))
    out = torch.empty(rows + QUERIES, DIM)
    for part in out.split(BLOCK):
        which = torch.randint(1000, (len(part),), generator=random)
        part.copy_(normalize(centres[which] + torch.randn(len(part), DIM, generator=random) / DIM**0.5))
    return out[QUERIES:].numpy(), out[:QUERIES].numpy()


def folder(given: argparse.Namespace, data: str) -> Path:
    return given.cache / f"{data}-{given.rows}"


def prepare(given: argparse.Namespace) -> None:
    """Make the data and build the index."""
    for data in given.data:
        home = folder(given, data)
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "queries.npy").exists():
            rows, queries = (
                real(given.cache / "photographs.npy", given.rows) if data == "real" else clusters(given.rows)
            )
            np.save(home / "rows.npy", rows)
            np.save(home / "queries.npy", queries)
        rows = np.load(home / "rows.npy", mmap_mode="r")
        wanted = Wanted(given.kind, given.recall)
        begin, chosen = time.perf_counter(), plan(wanted, len(rows), DIM)
        index = Index.build(rows, np.ones(len(rows), bool), chosen, wanted)
        print(f"{data}: {chosen}; built in {time.perf_counter() - begin:.1f} s; {index.facts}", flush=True)
        keep = home / f"{given.kind}-{given.recall}"
        keep.mkdir(exist_ok=True)
        save(keep, 0, index._codes.serialize(), index.alive, index.facts)


def opened(given: argparse.Namespace, home: Path, rows: np.ndarray) -> Index:
    loaded = load(next((home / f"{given.kind}-{given.recall}").glob("*.faiss")))
    if loaded is None:
        raise SystemExit("the prepared index is damaged")
    data, alive, facts = loaded
    return Index(rows, alive, Codes.load(data), facts)


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def in_a_row(work: Callable[[], object]) -> Callable[[], object]:
    return lambda: [work() for _ in range(ROW)]


def side_by_side(
    flat: Callable[[], object], ours: Callable[[], object], rounds: int, each: int = 1
) -> dict[str, object]:
    ours()
    pairs = [(seconds(flat) / each, seconds(ours) / each) for _ in range(rounds)]
    ratios = [a / b for a, b in pairs]
    return {
        "flat_ms": round(1e3 * statistics.median(a for a, _ in pairs), 3),
        "fewshot_ms": round(1e3 * statistics.median(b for _, b in pairs), 3),
        "ratio": round(statistics.median(ratios), 1),
        "ratios": [round(min(ratios), 1), round(max(ratios), 1)],
        "rounds": rounds,
    }


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    return round(float(np.mean([np.isin(t, f).mean() for f, t in zip(found, truth, strict=True)])), 5)


def measure_one(given: argparse.Namespace, data: str) -> dict[str, object]:
    home, faiss = folder(given, data), load_faiss()
    rows, queries = np.load(home / "rows.npy"), np.load(home / "queries.npy")
    index, flat, asked = opened(given, home, rows), faiss.IndexFlatIP(DIM), torch.from_numpy(queries)
    flat.add(rows)
    truth = flat.search(queries, 10)[1]
    singles = iter(range(10**9))

    def one_flat() -> None:
        i = next(singles) % QUERIES
        flat.search(queries[i : i + 1], 10)

    def one_ours() -> None:
        i = next(singles) % QUERIES
        index.search(asked[i : i + 1], 10)

    found = {
        "data": data,
        "kind": index.facts.kind,
        "factory": index.facts.factory,
        "bytes_a_row": round(len(index._codes.serialize()) / len(rows), 1),
        "recall@10": recall(index.search(asked, 10)[1], truth),
        "recall@10 told by the index": index.facts.recall,
        "single": side_by_side(one_flat, one_ours, given.singles),
        "single, of 20 in a row": side_by_side(in_a_row(one_flat), in_a_row(one_ours), given.rounds, each=ROW),
        "batch of 1000": side_by_side(lambda: flat.search(queries, 10), lambda: index.search(asked, 10), given.rounds),
    }
    if given.find:
        found["find"] = measure_find(given, index, flat, asked)
    return found


def measure_find(given: argparse.Namespace, index: Index, flat: object, queries: torch.Tensor) -> dict[str, object]:
    """Nearest-centroid and ridge heads of 20 classes: top 1,000 of each class, beside two ways of a full scan."""
    centres = queries[(queries @ queries[:CLASSES].T).topk(16, 0).indices.T].mean(1)  # [20, 512] 16 queries each
    gram = torch.linalg.inv(queries.T @ queries + 10 * torch.eye(DIM))
    member = torch.nn.functional.one_hot((queries @ centres.T).argmax(1), CLASSES).float()  # [1000, 20]
    heads = {"centroids": 20 * normalize(centres), "ridge": (gram @ queries.T @ (member - member.mean(0))).T}
    rows, out, classes = torch.from_numpy(index.rows), {}, list(range(CLASSES))
    for name, weight in heads.items():
        head = LinearHead(weight.contiguous())
        truth = flat.search(weight.numpy(), TOP)[1]  # type: ignore[attr-defined]

        def product(head: LinearHead = head) -> torch.Tensor:
            return head.logits(rows).T.topk(TOP).indices

        out[name] = {
            f"recall@{TOP}": recall(np.stack(nearest_rows(index, head, classes, TOP)), truth),
            "beside one product and topk": side_by_side(
                product, lambda head=head: nearest_rows(index, head, classes, TOP), given.rounds
            ),
            "beside IndexFlatIP": side_by_side(
                lambda weight=weight: flat.search(weight.numpy(), TOP),  # type: ignore[attr-defined]
                lambda head=head: nearest_rows(index, head, classes, TOP),
                given.rounds,
            ),
        }
    return out


def profile_one(given: argparse.Namespace, data: str) -> dict[str, object]:
    """Milliseconds of the parts of a lone query, after a flat scan and in a row; medians."""
    home, flat = folder(given, data), load_faiss().IndexFlatIP(DIM)
    rows, queries = np.load(home / "rows.npy"), np.load(home / "queries.npy")
    index, asked, few_rows = opened(given, home, rows), torch.from_numpy(queries), rows[:FEW]
    flat.add(rows)
    wanted = Wanted("fast", given.recall)
    few = Index.build(few_rows, np.ones(FEW, bool), plan(wanted, FEW, DIM), wanted)
    codes, depth = index._codes, first_depth(10, index.facts.spread)
    lists = looks(index.facts.tiers, 10, index.most_effort, index.facts.lead)
    near = codes.candidates(queries, depth, lists)[1]
    memory = np.ones(int(codes.bytes_per_row() * len(rows)) // 8, np.int64)
    parts: dict[str, Callable[[int], object]] = {
        "query": lambda i: index.search(asked[i : i + 1], 10),
        f"{depth} candidates": lambda i: codes.candidates(queries[i : i + 1], depth, lists),
        "their exact scores": lambda i: inner_products(queries[i : i + 1], rows, near[i : i + 1]),
        "adding up as many bytes as the codes have": lambda _: memory.sum(),
        f"query among {FEW:,} rows": lambda i: few.search(asked[i : i + 1], 10),
    }
    cold: dict[str, list[float]] = {name: [] for name in parts}
    scans = []
    for i in range(given.singles):
        for name, part in parts.items():
            scans.append(seconds(lambda i=i: flat.search(queries[i : i + 1], 10)))
            cold[name].append(seconds(lambda part=part, i=i: part(i)))
    warm = {name: [seconds(lambda p=part, i=i: p(i)) for i in range(given.singles)] for name, part in parts.items()}
    told = {n: {k: round(1e3 * statistics.median(t[n]), 3) for k, t in (("cold", cold), ("warm", warm))} for n in parts}
    return {"data": data, "flat_ms": round(1e3 * statistics.median(scans), 3), "ms": told, "rounds": given.singles}


def measure(given: argparse.Namespace) -> None:
    one = profile_one if given.step == "profile" else measure_one
    found = {
        "what": "milliseconds of fewshot's index and of faiss.IndexFlatIP, 512-d float32, top 10",
        "rows": given.rows,
        "asked for": {"kind": given.kind, "recall": given.recall},
        "threads": torch.get_num_threads(),
        "load": [round(v, 2) for v in os.getloadavg()],
        "versions": versions() | {"faiss": load_faiss().__version__},
        "results": [one(given, data) for data in given.data],
        "peak_mb": round(peak_mb(torch.device("cpu"))),
    }
    text = json.dumps(found, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["embed", "prepare", "measure", "profile"])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--photographs", type=Path, help="The folder that holds the data sets.")
    parser.add_argument("--data", nargs="+", default=["real", "clusters"])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kind", default="auto")
    parser.add_argument("--recall", type=float, default=0.999)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--singles", type=int, default=50)
    parser.add_argument("--find", action="store_true", help="Measure find as well.")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    {"embed": embed, "prepare": prepare, "measure": measure, "profile": measure}[given.step](given)


if __name__ == "__main__":
    main()
