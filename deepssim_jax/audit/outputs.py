"""The files of an audit, each written whole; `summary.json` last, with the hashes of the others.

`inputs.csv` and `inputs.json` say which files were read and how; they are for the institution that runs
the audit and are what `verify` starts from. Only `report_share.html` is made to be given away.
"""

import importlib.metadata
import json
from collections.abc import Mapping, Sequence

from deepssim_jax.audit import doubles, report, tables
from deepssim_jax.audit.result import AuditResult, GalleryItem
from deepssim_jax.data.manifest import FORGET, Manifest, Role
from deepssim_jax.data.records import Unused
from deepssim_jax.data.store import ImageStore
from deepssim_jax.nn import encoder as encoders
from deepssim_jax.workspace import Workspace, sha256

# Every file of an audit but the summary, which has their hashes.
NAMES = (
    "nearest.csv",
    "pairs.csv",
    "real_duplicates.csv",
    "inputs.csv",
    "inputs.json",
    "report.html",
    "report_share.html",
)


def versions(encoder: str) -> dict[str, str]:
    """Versions that can change a score, and the encoder's hash."""
    names = ("deepssim-jax", "jax", "jaxlib", "flax", "numpy", "scipy", "pillow")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "encoder": encoders.encoder_hash(encoder)}


def write_all(
    result: AuditResult,
    gallery: Sequence[GalleryItem],
    out: Workspace,
    *,
    manifests: Mapping[Role, Manifest],
    stores: Mapping[Role, ImageStore],
) -> None:
    """Writes every file of the contract into `out`.

    Args:
      result: what was found.
      gallery: pictures for the internal report.
      out: where to.
      manifests: the files by role.
      stores: the images by role, for the hashes of the files read.
    """
    out.write("nearest.csv", tables.matches(result.nearest, ranked=False).csv())
    out.write("pairs.csv", tables.matches(result.pairs, ranked=True).csv())
    out.write("real_duplicates.csv", tables.table([doubles.COLUMNS, *result.real_doubles]))
    out.write("inputs.csv", _inputs_csv(result, manifests, stores))
    out.write("inputs.json", _inputs_json(result, manifests))
    report.write_reports(result, gallery, out, salt=out.secret())
    files = {name: sha256(out.path(name)) for name in NAMES}
    out.write("summary.json", tables.summary_json(result, files))


def _inputs_csv(
    result: AuditResult, manifests: Mapping[Role, Manifest], stores: Mapping[Role, ImageStore]
) -> bytes:
    # What was read and could not be compared has a reason, too.
    reasons = {(item.role, item.image_id): item.reason for item in result.exclusions}
    out = [["role", "image_id", "subject_id", "sha256", "status", "reason"]]
    for role, images in stores.items():
        subjects = dict(zip(images.image_ids, images.subject_ids, strict=True))
        rows = [
            [role.value, i, subjects[i] or "", digest, "read", reasons.get((role.value, i), "")]
            for i, digest in zip(images.image_ids, images.sha256, strict=True)
        ]
        rows += [
            [role.value, item.image_id, "", "", "excluded", item.reason] for item in images.rejected
        ]
        rows += [
            [role.value, item.name, "", "", _status(item), item.reason]
            for item in manifests[role].unused
        ]
        out += sorted(rows)
    return tables.table(out)


def _status(item: Unused) -> str:
    return "left out" if FORGET in item.reason else "no image"


def _inputs_json(result: AuditResult, manifests: Mapping[Role, Manifest]) -> bytes:
    content = {
        "sources": {role.value: str(m.source) for role, m in manifests.items()},
        "images_left_out": {role.value: m.images_left_out for role, m in manifests.items()},
        "settings": dict(result.settings),
    }
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
