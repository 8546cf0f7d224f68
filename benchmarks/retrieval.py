"""Is the original among the first candidates? By transformation and by way of searching.

    python benchmarks/retrieval.py --data=../shared/data --out=benchmarks/results

References are all films, or all axial slices of brains; queries are copies of some of them under
the stress list (`cases/stress.py`), none of which an encoder was trained on. With --slices, a folder
with the T1 slices of six people (`data/r*slice.jpg` in the source package of antspyx), these join the brains,
and copies of them alone are asked for as well, about forty of each. Recall at 1 and at 10
of the original with Clopper-Pearson's 95 % interval, for the encoder's cosine, for the aligned
search, and for what an audit that uses both proposes for verification; and pairs a second of the
first two. Nothing is verified here. Then Spearman's correlation of the cosine with the SSIM after
alignment, over random pairs of different images, and of that SSIM found from either side of the
pairs. One record goes into OUT/retrieval.jsonl. About ten minutes on two cores.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from absl import app, flags
from scipy import stats

from benchmarks.cases.bootstrap import bootstrapped, draws
from benchmarks.cases.brains import brain_slices
from benchmarks.cases.films import image_of
from benchmarks.cases.records import dated, keep
from benchmarks.cases.stress import CONDITIONS, stressed
from deepssim_jax.data.preprocess import fit_to_size
from deepssim_jax.nn.encoder import Encoder, load_encoder
from deepssim_jax.ops.intensity import zscore
from deepssim_jax.ops.registration import register
from deepssim_jax.ops.ssim import ssim
from deepssim_jax.scoring.aligned import AlignedIndex
from deepssim_jax.scoring.candidates import candidates
from deepssim_jax.scoring.decide import clopper_pearson
from deepssim_jax.scoring.embed import features
from deepssim_jax.scoring.pairs import nearest
from deepssim_jax.scoring.retrieval import Retrieval
from deepssim_jax.scoring.side import Side

DATA = flags.DEFINE_string("data", "../shared/data", "folder with cxr/ and brain3d/")
OUT = flags.DEFINE_string("out", None, "folder for retrieval.jsonl; nothing is written without")
ENCODER = flags.DEFINE_string("encoder", "default", "the shipped encoder, or a .safetensors file")
COPIES = flags.DEFINE_integer("copies", 250, "copies of each condition", lower_bound=10)
SEED = flags.DEFINE_integer("seed", 0, "of the copies")
SLICES = flags.DEFINE_string("slices", None, "folder with antspyx's r*slice.jpg; left out without")
ALIGNED = flags.DEFINE_bool("aligned", True, "run the aligned search as well")
_SIZE = 128
_DEPTH = 10


def films(data: Path) -> np.ndarray:
    """All chest films, float64 [n, 256, 256] on [0, 1]."""
    paths = sorted((data / "cxr").glob("*.png"))
    return np.stack([image_of(path) for path in paths])


def brains(data: Path) -> np.ndarray:
    """Sixteen axial slices of every volume, float64 [n, 256, 256] on [0, 1]."""
    return np.stack([image for _, image in brain_slices(data)])


def slices(folder: Path) -> np.ndarray:
    """The axial T1 slices of antspyx, float64 [6, 256, 256] on [0, 1]."""
    paths = sorted(folder.glob("r*slice.jpg"))
    if not paths:
        raise ValueError(f"--slices: there is no r*slice.jpg in {folder}")
    return np.stack([image_of(path) for path in paths])


def small(images: np.ndarray) -> np.ndarray:
    return np.stack([fit_to_size(x.astype(np.float32), size=(_SIZE, _SIZE)) for x in images])


def measure(
    images: np.ndarray, encoder: Encoder, *, asked: int = 0, repeats: int = 1
) -> dict[str, object]:
    """Recall of every condition among these images, and the rates.

    Copies are made of the last `asked` images, 0 for all, of each at most `repeats`.
    """
    originals = np.arange(len(images))[-asked:]
    pool = np.tile(originals, repeats)
    known_images = small(images)
    embeddings, low = features(known_images, encoder)
    known = Side(known_images.__getitem__, low, embeddings)
    index = AlignedIndex.build(low) if ALIGNED.value else None
    seconds = {"encoder": 0.0, "aligned": 0.0}
    recall, pairs = {}, 0
    for number, condition in enumerate(CONDITIONS):
        rng = np.random.default_rng([SEED.value, number])
        rows = rng.choice(pool, min(COPIES.value, len(pool)), replace=False)
        copies = small(np.stack([stressed(images[r], condition, rng) for r in rows]))
        copy_embeddings, copy_low = features(copies, encoder)
        pairs += len(rows) * len(images)
        begin = time.perf_counter()
        found = {"encoder": nearest(copy_embeddings, embeddings, k=_DEPTH).indices}
        seconds["encoder"] += time.perf_counter() - begin
        if index is not None:
            begin = time.perf_counter()
            found["aligned"] = index.search(copy_low, k=_DEPTH).indices
            seconds["aligned"] += time.perf_counter() - begin
        recall[condition] = {
            way: {
                f"at_{k}": _share(np.any(columns[:, :k] == rows[:, None], axis=1))
                for k in (1, _DEPTH)
            }
            for way, columns in found.items()
        }
        if index is not None:
            queries = Side(copies.__getitem__, copy_low, copy_embeddings)
            proposed = candidates(queries, known, index=index, proposals=Retrieval.BOTH.proposals)
            hits = np.array([(query, row) in proposed for query, row in enumerate(rows)])
            recall[condition]["both"] = {"proposed": _share(hits)}
    agreement = _agreement(known_images, embeddings, originals)
    rates = {way: round(pairs / spent) for way, spent in seconds.items() if spent}
    return {
        "references": len(images),
        "recall": recall,
        **agreement,
        "pairs_per_s": rates,
    }


def _agreement(
    images: np.ndarray, embeddings: np.ndarray, originals: np.ndarray, pairs: int = 600
) -> dict[str, list[float]]:
    """Spearman of cosine and aligned SSIM, and of that SSIM found from either side of a pair.

    The second says how far the first can come: of two strangers no alignment is right, and what
    `register` finds depends on which of them is moved. With 95 % intervals of a bootstrap over pairs.
    """
    rng = np.random.default_rng(SEED.value)
    first = originals[rng.integers(0, len(originals), pairs)]
    second = (first + rng.integers(1, len(images), pairs)) % len(images)
    a, b = (np.asarray(zscore(images[rows])) for rows in (first, second))
    there, back = _aligned_ssim(a, b), _aligned_ssim(b, a)
    cosine = (embeddings[first] * embeddings[second]).sum(1)
    sides = {
        "spearman": (cosine, there),
        "spearman_of_mean": (cosine, (there + back) / 2),
        "spearman_of_ways": (there, back),
    }
    drawn = draws(rng, pairs)
    return {
        name: bootstrapped(
            lambda rows, x=x, y=y: stats.spearmanr(x[rows], y[rows]).statistic, drawn
        )
        for name, (x, y) in sides.items()
    }


def _aligned_ssim(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    aligned = zscore(register(moving, fixed).aligned)
    return np.asarray(ssim(fixed, aligned, data_range="first", reduction="none"))


def _share(hits: np.ndarray) -> list[float]:
    share = clopper_pearson(int(hits.sum()), len(hits))
    return [round(x, 4) for x in (share.value, share.low, share.high)]


def table(result: dict) -> str:
    """Markdown: a row a condition, percent with intervals."""
    first = next(iter(result["recall"].values()))
    columns = [(way, at) for way, shares in first.items() for at in shares]
    lines = ["| | " + " | ".join(f"{way} {at.replace('_', ' ')}" for way, at in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for condition, ways in result["recall"].items():
        cells = ["{:.1%} ({:.0%} to {:.0%})".format(*ways[way][at]) for way, at in columns]
        lines.append(f"| {condition} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(_: list[str]) -> None:
    encoder = load_encoder(ENCODER.value)
    data = Path(DATA.value)
    known = brains(data)
    sets = {"films": (films(data), {}), "brain_slices": (known, {})}
    if SLICES.value:
        more = slices(Path(SLICES.value))
        sets["t1_slices"] = np.concatenate([known, more]), {"asked": len(more), "repeats": 40}
    for name, (images, of) in sets.items():
        result = measure(images, encoder, **of)
        print(f"\n{name}: {result['references']} references, {result['pairs_per_s']} pairs/s")
        for what, key in (
            ("cosine and aligned SSIM", "spearman"),
            ("cosine and the mean of that from either side", "spearman_of_mean"),
            ("aligned SSIM from either side", "spearman_of_ways"),
        ):
            print("Spearman of {}: {:.3f} ({:.3f} to {:.3f})".format(what, *result[key]))
        print(table(result), flush=True)
        record = {
            "set": name,
            "encoder": ENCODER.value,
            "seed": SEED.value,
            "copies": COPIES.value,
            **result,
        }
        keep(dated(record), OUT.value, "retrieval")


if __name__ == "__main__":
    app.run(main)
