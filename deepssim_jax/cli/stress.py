"""Makes copies of real images and measures how well every method finds them.

    deepssim stress --real=chests/ --real=knees/ --out=stress/ --subject_regex='^([0-9]+)_'

Thresholds are chosen on the tuning split of the patients, and figures are those of the reporting split.
`edits` looks for copies under 81 edits among all real images and prints the table edit by kind; `mi_oni`
and `lcmem` repeat two published benchmarks; the other settings score pairs. Writes a table (.md), its
figures (.csv or .json) and every query or pair a setting.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from absl import flags

from deepssim_jax.cli import console, usage
from deepssim_jax.cli.exit_codes import ExitCode
from deepssim_jax.cli.progress import progress

if TYPE_CHECKING:  # at run time they would load JAX before --help is answered
    from deepssim_jax.audit.edit_trials import EditSetting
    from deepssim_jax.audit.searchers import Searcher
    from deepssim_jax.audit.stress import StressResult
    from deepssim_jax.data.edits import Edit
    from deepssim_jax.data.planted_pairs import Setting
    from deepssim_jax.data.store import ImageStore
    from deepssim_jax.nn.encoder import Encoder
    from deepssim_jax.scoring.methods import Method
    from deepssim_jax.workspace import Workspace

_T = TypeVar("_T")

_REAL = flags.DEFINE_multi_string(
    "real",
    None,
    "real images: a folder, a .csv/.tsv manifest, a BIDS root; may be repeated, each a kind of image "
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
    "side in pixels that methods see; a multiple of 32; edits are made at up to twice this side",
)
_PAIRS = ["registered", "perturbed", "harsh"]
_SETTINGS = flags.DEFINE_multi_enum(
    "setting",
    [*_PAIRS, "edits"],
    [*_PAIRS, "edits", "mi_oni", "lcmem"],
    "how pairs are edited, or which list of edits; may be repeated",
)
_METHODS = flags.DEFINE_list(
    "methods",
    [],
    "names of methods, separated by commas; if empty, all that score pairs, and audit, "
    "detector and encoder for lists of edits, which also know ncc, sift, phash and dhash",
)
_GROUPS = flags.DEFINE_list(
    "groups", [], "groups of edits, e.g. rotation,part; separated by commas; all if empty"
)
_COPIES = flags.DEFINE_integer("copies", 30, "copies under each edit", lower_bound=1)
_FALSE_ALARMS = flags.DEFINE_float(
    "false_alarms",
    0.005,
    "share of images of other patients that a threshold for lists of edits may call copies",
    lower_bound=1e-9,
    upper_bound=0.49,
)
_ENCODER = flags.DEFINE_string("encoder", "default", "the shipped encoder, or a .safetensors file")
_ROUNDS = flags.DEFINE_integer("rounds", 2, "pairs of each class and image", lower_bound=1)
_SEED = flags.DEFINE_integer(
    "seed",
    0,
    "of the pairs and of the split of the patients",
    lower_bound=0,
    upper_bound=2**32 - 1,
)


def main() -> int:
    """Runs the benchmark.

    Returns:
        `ExitCode.DONE`.
    """
    from deepssim_jax.audit import stress
    from deepssim_jax.audit.edit_trials import EditSetting
    from deepssim_jax.data.manifest import check_subject_regex
    from deepssim_jax.data.planted_pairs import Setting
    from deepssim_jax.nn.encoder import load_encoder
    from deepssim_jax.ops import arguments
    from deepssim_jax.scoring.embed import check_size
    from deepssim_jax.scoring.methods import methods
    from deepssim_jax.workspace import Overlap, Workspace

    check_size(_SIZE.value)
    check_subject_regex(_SUBJECT_REGEX.value)
    usage.exists(_REAL, "folder or file")
    named = _names()
    asked = list(dict.fromkeys(_SETTINGS.value))
    pairs = [Setting(name) for name in asked if name in _PAIRS]
    lists = [EditSetting(name) for name in asked if name not in _PAIRS]
    encoder = load_encoder(_ENCODER.value)
    of_pairs, of_lists = methods(encoder), _searchers(encoder)
    known = [*(of_pairs if pairs else ()), *(of_lists if lists else ())]
    for name in _METHODS.value:
        arguments.choice(name, "methods", known=tuple(dict.fromkeys(known)))
    wanted = _edits(lists)
    default = ["audit", "detector", "encoder"]
    makers = _chosen(of_lists, default=default, setting=lists[0].value) if lists else {}
    every = list(of_pairs)
    scorers = _chosen(of_pairs, default=every, setting=pairs[0].value) if pairs else {}
    rows: list[tuple[str, object]] = []
    written: list[Path] = []
    opened = Workspace.open(
        _OUT.value,
        command="stress",
        inputs={_flag(number, named): source for number, source in enumerate(named.values(), 1)},
        reads=_networks(),
        overlap=Overlap.ALLOWED,
    )
    with opened as workspace:
        if lists:
            searchers = {name: make() for name, make in makers.items()}
            _trials(wanted, searchers, named, workspace, rows, written)
        if pairs:
            for name, source in named.items():
                only = len(named) == 1
                result, images = _pairs(source, workspace, pairs, scorers)
                ids, account = images.image_ids, images.account
                folder = "" if only else f"{name}/"
                written += stress.write(
                    result, workspace, image_ids=ids, account=account, folder=folder
                )
                rows += account.rows("" if only else name)
                rows += [
                    (what if only else f"{name}, {what}", value) for what, value in _summary(result)
                ]
        # What stays of other settings or images would be read beside these.
        workspace.remove_others(path.relative_to(workspace.root).as_posix() for path in written)
        workspace.prune()
    console.finish(rows, written=written)
    return ExitCode.DONE


def _names() -> dict[str, str]:
    """A kind's name to its source: the last part of the path, or all of it where that is taken."""
    from deepssim_jax.audit.folder_names import folders_of
    from deepssim_jax.workspace import WORK

    sources = {Path(source).expanduser().resolve(): source for source in _REAL.value}
    if again := len(_REAL.value) - len(sources):
        raise usage.UsageError(
            f"--real names {again} of its folders twice; give each kind of image once"
        )
    names = [path.stem for path in sources]
    if len({name.casefold() for name in names}) < len(names) or WORK in names:
        whole = {row: "_".join(path.parts[1:]) for row, path in enumerate(sources)}
        names = list(folders_of(whole, reserved=[WORK]).values())
    return dict(zip(names, sources.values(), strict=True))


def _flag(number: int, named: Mapping[str, str]) -> str:
    """What messages call a source."""
    return "--real" if len(named) == 1 else f"--real number {number}"


def _networks() -> dict[str, str]:
    """The file that is read beside the images, by flag."""
    return {} if _ENCODER.value == "default" else {"--encoder": _ENCODER.value}


def _edits(settings: Sequence["EditSetting"]) -> "dict[EditSetting, list[Edit]]":
    """The edits of every setting that --groups leaves.

    Raises:
        ValueError: A group is not known, or leaves a setting nothing.
    """
    from deepssim_jax.data.edits import Group
    from deepssim_jax.ops import arguments

    for name in _GROUPS.value:
        arguments.choice(name, "groups", known=tuple(group.value for group in Group))
    wanted = {
        setting: [e for e in setting.edits if not _GROUPS.value or e.group.value in _GROUPS.value]
        for setting in settings
    }
    for setting, edits in wanted.items():
        if not edits:
            raise ValueError(
                f"--groups={','.join(_GROUPS.value)}: --setting={setting.value} has none"
            )
    return wanted


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


def _searchers(encoder: "Encoder") -> dict[str, Callable[[], "Searcher"]]:
    """How to make each method that looks for originals; the packages of others load when asked."""
    from deepssim_jax.audit import peer_searchers, searchers
    from deepssim_jax.nn.encoder import embed

    size = _SIZE.value
    by_embedding = functools.partial(searchers.by_embedding, size=size)
    return {
        "detector": lambda: searchers.detector(encoder, size=size),
        "audit": lambda: searchers.audit(encoder, size=size),
        "encoder": lambda: by_embedding(functools.partial(embed, encoder)),
        "ncc": lambda: by_embedding(searchers.pixels),
        "sift": peer_searchers.sift,
        "phash": lambda: peer_searchers.by_hash("phash", size=size),
        "dhash": lambda: peer_searchers.by_hash("dhash", size=size),
    }


def _trials(
    wanted: "Mapping[EditSetting, Sequence[Edit]]",
    searchers: Mapping[str, "Searcher"],
    named: Mapping[str, str],
    out: "Workspace",
    rows: list[tuple[str, object]],
    written: list[Path],
) -> None:
    """Runs lists of edits on every kind; adds what is printed and written."""
    from deepssim_jax.audit import edit_figures, edit_trials
    from deepssim_jax.data.kinds import read_kind

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
        out.keep_apart(kind.elsewhere)
        rows += kind.account.rows(kind.name)
    for setting, edits in wanted.items():
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
        written += edit_figures.write(trials, found, out, rate=rate)
        print(f"{edit_figures.table(found)}\n")
        rows += edit_figures.summary(found)


def _pairs(
    source: str,
    workspace: "Workspace",
    settings: Sequence["Setting"],
    methods: Mapping[str, "Method"],
) -> "tuple[StressResult, ImageStore]":
    """Scores pairs of one kind; returns them with the images."""
    import numpy as np

    from deepssim_jax.audit import stress
    from deepssim_jax.data import pipelines

    with progress(unit="images") as on_progress:
        images = pipelines.open_images(
            source,
            workspace,
            size=(2 * _SIZE.value,) * 2,
            subject_regex=_SUBJECT_REGEX.value,
            on_progress=on_progress,
        )
    with progress(unit="pairs") as on_progress:
        result = stress.stress(
            images.take(np.arange(len(images))),
            images.patients(),
            methods=methods,
            settings=stress.StressSettings(
                settings=tuple(settings),
                size=_SIZE.value,
                rounds=_ROUNDS.value,
                seed=_SEED.value,
            ),
            on_progress=on_progress,
        )
    return result, images


def _summary(result: "StressResult") -> list[tuple[str, object]]:
    """What is printed of one kind's pairs."""
    rows: list[tuple[str, object]] = [("pairs", len(result.pairs))]
    for outcome in result.outcomes:
        figure = outcome.figures.macro_f1
        text = f"macro F1 {figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
        rows.append((f"{outcome.setting.value}, {outcome.method}", text))
    return rows
