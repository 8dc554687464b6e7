"""Pictures a second from files to a store, beside a plain loop, and beside what model and decoding alone allow.

The plain loop opens with PIL, prepares as `lite` does, and runs timm's network eagerly in float32, 32 at a time; its
answers are the reference of the cosines. Run on otherwise idle cores:

python benchmarks/speed_pipeline.py --encoder lite --encoder lite:fast --out benchmarks/results/speed_pipeline.json
"""

import argparse
import json
import math
import os
import platform
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from PIL import Image

from fewshot.arrays import to_tensor, unit
from fewshot.build import update
from fewshot.embedding import stream
from fewshot.encoders import Encoder, conse, lite_image, lite_text, load_encoder
from fewshot.images import open_image, read_file
from fewshot.provenance import versions
from fewshot.store import Store

LARGE = 6_000_000  # pixels


def plain_loop(paths: list[Path], bridge: conse.Bridge, net: torch.nn.Module) -> torch.Tensor:
    rows = []
    for start in range(0, len(paths), 32):
        opened = [Image.open(path).convert("RGB") for path in paths[start : start + 32]]
        pixels = torch.stack([lite_image.prepare(image).contiguous() / 127.5 - 1 for image in opened])
        with torch.inference_mode():
            features = net.forward_head(net.forward_features(pixels), pre_logits=True)
            places = bridge.place_images(net.classifier(features))
        rows.append(torch.cat([unit(features) * math.sqrt(0.9), places * math.sqrt(0.1)], -1))
    return torch.cat(rows)


def enlarge(paths: list[Path], folder: Path) -> list[Path]:
    made = []
    for number, path in enumerate(paths):
        image = Image.open(path).convert("RGB")
        scale = math.sqrt(LARGE / (image.width * image.height))
        target = folder / f"{number:04}.jpg"
        image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS).save(
            target, quality=90
        )
        made.append(target)
    return made


def rate_of(run, count: int, times: int = 1) -> float:
    best = math.inf
    for _ in range(times):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return count / best


def decode_rate(encoder: Encoder, paths: list[Path], workers: int) -> float:
    with ThreadPoolExecutor(workers) as pool:
        return rate_of(
            lambda: list(pool.map(lambda p: encoder.prepare(open_image(read_file(p), encoder.smallest_side)), paths)),
            len(paths),
        )


def measure(name: str, paths: list[Path], reference: torch.Tensor, plain: float, workers: int) -> dict[str, object]:
    encoder = load_encoder(name, "cpu")
    pixels = torch.stack([encoder.prepare(open_image(path)) for path in paths[:64]])
    next(iter(stream(encoder, paths[:8])))
    model = rate_of(lambda: [encoder.encode_prepared(part) for part in pixels.split(32)], len(pixels), times=2)
    decoding = decode_rate(encoder, paths, workers)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "index"
        listed = Path(folder) / "photos"
        listed.mkdir()
        for number, path in enumerate(paths):
            os.symlink(path, listed / f"{number:05}.jpg")
        with Store.create(out, encoder=encoder.name, fingerprint=encoder.fingerprint, dim=encoder.dim) as store:
            rate = rate_of(lambda: update(store, [listed], encoder=encoder), len(paths))
            entries = store.entries()
            found = to_tensor(store.embeddings()[[entry.row for entry in entries]])
    cosine = (found * reference).sum(-1)
    allowed = 1 / (1 / model + 1 / decoding)
    return {
        "encoder": name,
        "fingerprint": encoder.fingerprint,
        "images_per_s": rate,
        "plain_per_s": plain,
        "times_plain": rate / plain,
        "model_alone_per_s": model,
        "decoding_alone_per_s": decoding,
        "of_allowed": rate / allowed,
        "cosine_min": float(cosine.min()),
        "cosine_mean": float(cosine.mean()),
        "cosine_share_above_0.9999": float((cosine >= 0.9999).float().mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", action="append", help="lite, lite:fast ...; repeatable")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FEWSHOT_DATA", "../shared/data")))
    parser.add_argument("--count", type=int, default=256, help="ordinary pictures")
    parser.add_argument("--large", type=int, default=96, help="pictures enlarged to 6 megapixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep the enlarged pictures here")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    every = sorted((given.data / "caltech101" / "images").rglob("*.jpg"))
    ordinary = every[:: len(every) // given.count][: given.count]
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    state = torch.load(lite_image.weight_file(), map_location="cpu", weights_only=True)
    net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
    net.eval()
    bridge = conse.load(lite_text.load(torch.device("cpu")), lite_text.SHA256)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(exist_ok=True)
        large = sorted(folder.glob("*.jpg"))[: given.large] or enlarge(ordinary[: given.large], folder)
        for kind, paths in (("ordinary", ordinary), ("large", large)):
            plain_loop(paths[:32], bridge, net)
            start = time.perf_counter()
            reference = plain_loop(paths, bridge, net)
            plain = len(paths) / (time.perf_counter() - start)
            for name in given.encoder or ["lite", "lite:fast"]:
                row = {"pictures": kind, "n": len(paths), **measure(name, paths, reference, plain, given.threads)}
                rows.append(row)
                print(
                    f"{kind:9} {name:10} {row['images_per_s']:6.1f}/s, {row['times_plain']:.2f} x {plain:.1f}/s plain, "
                    f"{row['of_allowed']:.0%} of model {row['model_alone_per_s']:.0f}/s and decoding "
                    f"{row['decoding_alone_per_s']:.0f}/s; cosine min {row['cosine_min']:.6f} "
                    f"mean {row['cosine_mean']:.6f}",
                    flush=True,
                )
    result = {
        "benchmark": "speed_pipeline",
        "rows": rows,
        "threads": given.threads,
        "openvino": find_spec("openvino") is not None,
        "versions": versions(),
        "machine": f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
    }
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
