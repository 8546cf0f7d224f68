"""The job for volumes: which synthetic volumes are replicas of a patient's, at three levels.

Every stage leaves its work in the workspace `out`, keyed by what it was computed from, as in
`audit.audit`: a killed run goes on, and the files outside of `work` come out the same.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deepssim_jax import parallel
from deepssim_jax.audit import replica_outputs
from deepssim_jax.audit.doubles import Doubles
from deepssim_jax.audit.inputs import folders
from deepssim_jax.audit.replica_calibration import Evidence, calibrate_levels
from deepssim_jax.audit.replica_conclusion import MeasuredVolumes, check_rated, conclude
from deepssim_jax.audit.replica_doubles import find_volume_doubles
from deepssim_jax.audit.replica_pictures import Drawer
from deepssim_jax.audit.replica_result import ReplicaResult
from deepssim_jax.audit.replica_settings import ReplicaSettings
from deepssim_jax.audit.replica_trials import LevelCalibration
from deepssim_jax.data.embedding_file import read_embeddings
from deepssim_jax.data.label_maps import common_labels, read_label_names
from deepssim_jax.data.manifest import InputError, Manifest, Role, read_manifest, typed_regex
from deepssim_jax.data.store import ImageStore, fingerprint
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.nn.volume_embedding import embed_volumes
from deepssim_jax.ops import arguments
from deepssim_jax.scoring import ratings
from deepssim_jax.scoring.match import Progress
from deepssim_jax.scoring.volume_match import Reference, match_volumes
from deepssim_jax.scoring.volume_measure import MatchSettings
from deepssim_jax.scoring.volume_search import VolumeSide
from deepssim_jax.scoring.volume_sides import Embed, LevelSources, build_volume_side
from deepssim_jax.workspace import Overlap, Section, Workspace, sha256


@dataclasses.dataclass(frozen=True)
class LevelFiles:
    """What the user has made for the levels, each for both sides or for none.

    `segmentations` are folders of label maps named as the volumes are (`data.label_maps`), such as
    SynthSeg or TotalSegmentator (with `--ml`) makes them; `embeddings` are `.npz` files with `ids` and
    `embeddings`; by role. `label_names` is a table of what the labels are called.

    Examples:
      >>> import deepssim_jax as ds
      >>> real, synthetic = ds.Role.REAL, ds.Role.SYNTHETIC
      >>> files = ds.LevelFiles(segmentations={real: "maps/", synthetic: "their_maps/"})
      >>> sorted(files.segmentations.values())
      ['maps/', 'their_maps/']
    """

    segmentations: Mapping[Role, str | Path] = dataclasses.field(default_factory=dict)
    embeddings: Mapping[Role, str | Path] = dataclasses.field(default_factory=dict)
    label_names: str | Path | None = None

    def __post_init__(self) -> None:
        """Raises InputError where a side is missing, or where names have no labels."""
        if self.label_names is not None:
            arguments.path(self.label_names, "label_names", "a table of numbers and names")
            if not self.segmentations:
                raise InputError("--label_names is given and --segmentations_real is not")
        for name, given in (("segmentations", self.segmentations), ("embeddings", self.embeddings)):
            arguments.instance(given, name, Mapping, remedy="paths by ds.Role")
            for role, path in given.items():
                arguments.member(role, f"{name}, a key:", Role)
                arguments.path(path, name, "a folder of label maps, or a file of embeddings")
            if len(given) == 1:
                (only,) = given
                other = Role.REAL if only is Role.SYNTHETIC else Role.SYNTHETIC
                raise InputError(
                    f"--{name}_{only.value} is given and --{name}_{other.value} is not; a level needs both"
                )


_SAME = (
    "--real and --synthetic hold the same files: every volume would be found to be a replica of itself. "
    "Did you mean another folder? If this is intended, add --allow_same"
)
_ROLES = (Role.REAL, Role.SYNTHETIC)
COMMAND = "replicas"


def replicas(
    real: str | Path,
    synthetic: str | Path,
    *,
    out: str | Path | None = None,
    files: LevelFiles = LevelFiles(),
    rated: str | Path | None = None,
    settings: ReplicaSettings = ReplicaSettings(),
    on_progress: Progress = lambda done, total, what: None,
) -> ReplicaResult:
    """Finds the synthetic volumes that are replicas of a real one, at up to three levels.

    The levels and their names are those of RELICT; see `scoring.volume_search` for how each is
    searched and `audit.replica_calibration` for where thresholds come from.

    Args:
      real: folder, manifest or BIDS root of the training volumes (NIfTI, DICOM series, NumPy).
      synthetic: the volumes to judge, likewise.
      out: directory for the report and tables; None writes nothing that stays.
      files: label maps and embeddings that the user has made.
      rated: a `.csv` of what people say, see `scoring.ratings.read_ratings`.
      settings: see `ReplicaSettings`.
      on_progress: called with (done, total, what) as the work goes on.

    Returns:
      The result; with `out`, `report.html`, `report_share.html`, `replicas.csv` and `summary.json` lie
      there too.

    Raises:
      InputError: a folder is missing or holds no readable volume, or both are the same.
      ValueError: a setting cannot work, or a file does not fit the volumes.

    Examples:
      >>> import tempfile
      >>> import deepssim_jax as ds
      >>> from deepssim_jax import testing
      >>> phantoms = testing.phantom_volumes(4)
      >>> with tempfile.TemporaryDirectory() as work:
      ...     _ = testing.write_images(f"{work}/real", phantoms[:3])
      ...     synthetic = {"copy": phantoms[2], "other": phantoms[3]}
      ...     _ = testing.write_images(f"{work}/synthetic", synthetic)
      ...     settings = ds.ReplicaSettings(size=32)
      ...     result = ds.replicas(f"{work}/real", f"{work}/synthetic", settings=settings)
      >>> [(match.synthetic_id, match.kind.value) for match in result.matches]
      [('copy.npy', 'replica'), ('other.npy', 'different')]
    """
    arguments.progress(on_progress)
    arguments.instance(settings, "settings", ReplicaSettings, remedy="it has all defaults")
    arguments.instance(files, "files", LevelFiles, remedy="it has all defaults")
    for name, path in (("real", real), ("synthetic", synthetic)):
        arguments.path(path, name, "a folder of volumes, or a manifest")
    if out is not None:
        arguments.path(out, "out", "a folder for the report")
    if rated is not None:
        arguments.path(rated, "rated", "a .csv of what people say")
    roots = {Role.REAL: real, Role.SYNTHETIC: synthetic}
    if out is None:
        with Workspace.temporary(command=COMMAND) as workspace:
            return _replicas(roots, workspace, files, rated, settings, on_progress)
    opened = Workspace.open(
        out,
        command=COMMAND,
        inputs=folders(roots),
        reads=_reads(files, rated, settings),
        overlap=Overlap.ALLOWED if settings.allow_same else Overlap.REFUSED,
        processes=parallel.processes(),
    )
    with opened as workspace:
        return _replicas(roots, workspace, files, rated, settings, on_progress)


def _reads(
    files: LevelFiles, rated: str | Path | None, settings: ReplicaSettings
) -> dict[str, str | Path]:
    found = {f"--segmentations_{role.value}": path for role, path in files.segmentations.items()}
    found |= {f"--embeddings_{role.value}": path for role, path in files.embeddings.items()}
    if files.label_names is not None:
        found["--label_names"] = files.label_names
    if rated is not None:
        found["--ratings"] = rated
    if settings.encoder != "default":
        found["--encoder"] = settings.encoder
    return found


@dataclasses.dataclass(frozen=True)
class _Levels:
    """What levels beyond the voxels are made of, on both sides.

    `embed` and `embed_id` as in `LevelSources`; `maps` label maps by role, `labels` which of them are
    compared, under `names`, and `one_sided` those that only one side has; `key` hashes all of it.
    """

    embed: Embed | None
    embed_id: str
    maps: Mapping[Role, Manifest]
    labels: tuple[int, ...]
    names: tuple[str, ...]
    one_sided: Mapping[Role, tuple[int, ...]]
    key: list[str]

    @classmethod
    def of(cls, files: LevelFiles, settings: ReplicaSettings) -> "_Levels":
        """From the user's files; what they lack is made here."""
        embed: Embed | None = None
        embed_id = ""
        if not files.embeddings:
            encoder = encoders.load_encoder(settings.encoder)
            embed_id = encoders.encoder_hash(settings.encoder)

            def embed(volumes: np.ndarray) -> np.ndarray:
                return embed_volumes(encoder, settings.modality.contrast(volumes, settings.grid))

        names, one_sided = settings.modality.label_names, dict[Role, tuple[int, ...]]()
        maps = {
            role: read_manifest(folder, role=role, links=settings.links, arrays=settings.arrays)
            for role, folder in files.segmentations.items()
        }
        labels = tuple(range(1, len(names) + 1))
        if maps:
            labels, one_sided = common_labels(maps, settings.grid)
            called = {} if files.label_names is None else read_label_names(files.label_names)
            names = tuple(called.get(label, f"label {label}") for label in labels)
        key = _hashes(files, maps, settings)
        return cls(embed, embed_id, maps, labels, names, one_sided, key)


@dataclasses.dataclass(frozen=True)
class _Job:
    """A search's stages; each keeps its work in `out`."""

    out: Workspace
    files: LevelFiles
    levels: _Levels
    settings: ReplicaSettings
    on_progress: Progress

    @property
    def matching(self) -> MatchSettings:
        """How pairs are searched and measured."""
        return MatchSettings(
            candidates=self.settings.candidates,
            alignment=self.settings.alignment,
            labels=self.levels.labels,
        )

    def journal(self, what: str, prints: object) -> Section:
        """Where a stage keeps its work, by the stores that it takes."""
        how = [self.settings, self.levels.embed_id, self.levels.key]
        return self.out.section(what, how, prints)

    def read(self, manifest: Manifest) -> tuple[VolumeSide, ImageStore]:
        """Reads a side, and makes what its levels compare."""
        levels, role = self.levels, manifest.role
        given = self.files.embeddings.get(role)
        return build_volume_side(
            manifest,
            self.out,
            settings=self.settings.grid,
            sources=LevelSources(
                modality=self.settings.modality,
                embed=levels.embed,
                embed_id=levels.embed_id,
                given=None if given is None else read_embeddings(given),
                segmentations=levels.maps.get(role),
                labels=levels.labels,
            ),
            on_progress=self.on_progress,
            what=manifest.reading(f"reading {role.value}"),
        )

    def references(self, real: VolumeSide, images: ImageStore) -> tuple[Reference, Doubles]:
        """The real side to search in, of which volumes that are copies of each other are one patient's."""
        journal = self.journal("references", images.fingerprint)
        references = Reference.of(
            real,
            alignment=self.settings.alignment,
            journal=journal,
            on_progress=self.on_progress,
        )
        doubles = find_volume_doubles(
            references,
            images,
            settings=self.matching,
            journal=journal,
            on_progress=self.on_progress,
        )
        grouped = dataclasses.replace(real, groups=doubles.subjects)
        return dataclasses.replace(references, side=grouped), doubles

    def calibrated(self, references: Reference, images: ImageStore) -> Evidence:
        """What each level is worth on the real side."""
        segment = None
        if not self.levels.maps and self.settings.modality.label_names:
            segment = functools.partial(self.settings.modality.segment, settings=self.settings.grid)
        seed, level = self.settings.seed, self.settings.level
        controls = LevelCalibration(
            self.matching, self.levels.embed, segment, seed=seed, level=level
        )
        return calibrate_levels(
            references,
            settings=controls,
            journal=self.journal("calibration", images.fingerprint),
            on_progress=self.on_progress,
        )


def _replicas(
    roots: Mapping[Role, str | Path],
    out: Workspace,
    files: LevelFiles,
    rated: str | Path | None,
    settings: ReplicaSettings,
    on_progress: Progress,
) -> ReplicaResult:
    votes = None if rated is None else ratings.read_ratings(rated)
    job = _Job(out, files, _Levels.of(files, settings), settings, on_progress)
    manifests = {role: _listed(root, role, settings) for role, root in roots.items()}
    sides: dict[Role, VolumeSide] = {}
    stores: dict[Role, ImageStore] = {}
    for role, manifest in manifests.items():
        sides[role], stores[role] = job.read(manifest)
    real, synthetic = (stores[role] for role in _ROLES)
    if not settings.allow_same and set(real.sha256) == set(synthetic.sha256):
        raise InputError(_SAME)
    if votes is not None:
        check_rated(votes, synthetic)
    references, doubles = job.references(sides[Role.REAL], real)
    sides[Role.REAL] = references.side
    pairs = match_volumes(
        sides[Role.SYNTHETIC],
        references,
        settings=job.matching,
        journal=job.journal("search", [real.fingerprint, synthetic.fingerprint]),
        on_progress=on_progress,
        what="synthetic with real",
    )
    evidence = job.calibrated(references, real)
    levels = job.levels
    measured = MeasuredVolumes(
        pairs, sides, stores, manifests, levels.maps, doubles, evidence, levels.names,
        levels.one_sided, votes,
    )  # fmt: skip
    result = conclude(measured, settings)
    drawer = Drawer(
        sides=sides,
        references=references,
        stores=stores,
        manifests=manifests,
        grid=settings.grid,
        contrast=settings.modality.contrast,
        alignment=settings.alignment,
    )
    out.by_first(
        lambda: replica_outputs.write_all(
            result, out, drawer=drawer, doubles=doubles, sources=roots
        )
    )
    out.prune()
    return result


def _listed(root: str | Path, role: Role, settings: ReplicaSettings) -> Manifest:
    regex = settings.subject_regex if role is Role.REAL else None
    manifest = read_manifest(
        root, role=role, subject_regex=regex, links=settings.links, arrays=settings.arrays
    )
    _check_subjects(manifest, regex)
    return manifest


def _check_subjects(manifest: Manifest, regex: str | None) -> None:
    """Raises InputError where --subject_regex leaves volumes without a patient."""
    missed = sum(record.subject_id is None for record in manifest.records)
    if regex and missed:
        raise InputError(
            f"{typed_regex(regex)} finds no patient in {missed} of {len(manifest.records)} real files; each "
            "of them would count as a patient of its own. Mend the expression, or leave the files out"
        )


def _hashes(
    files: LevelFiles, maps: Mapping[Role, Manifest], settings: ReplicaSettings
) -> list[str]:
    """Of what the user made, by content."""
    out = []
    for role in _ROLES:
        if role in files.embeddings:
            out.append(sha256(Path(files.embeddings[role])))
        if role in maps:
            out.append(fingerprint(maps[role], settings.grid))
    return out
