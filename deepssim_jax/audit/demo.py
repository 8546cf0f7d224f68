"""A made-up cohort with planted copies, audited like any other.

Nobody's image is used. Real and held-out people, and the people of the unrelated synthetic images,
are all different phantoms; the copies are made from real ones by known transformations, so what
must be found is known by construction.
"""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np

from deepssim_jax.audit.audit import AuditSettings, audit
from deepssim_jax.audit.result import AuditResult, Label
from deepssim_jax.data import anatomy as anatomies
from deepssim_jax.data import phantom
from deepssim_jax.data.pictures import png
from deepssim_jax.ops import augment
from deepssim_jax.scoring.match import Progress
from deepssim_jax.workspace import Access, Workspace

_COHORT = "cohort"
_OPEN = Access.SHARED  # nobody's images


@dataclasses.dataclass(frozen=True)
class CohortSize:
    """How many phantoms of each kind."""

    real: int = 120
    holdout: int = 40
    copies: int = 30
    unrelated: int = 90


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """The audit, and how it did against what was planted."""

    audit: AuditResult
    planted: int
    found: int  # called a copy, of the right person
    exact: int  # of these, called exact
    false: int  # unrelated images called a copy
    unrelated: int
    anatomy: str


def make_cohort(
    workspace: Workspace, *, size: CohortSize, seed: int, anatomy: anatomies.Anatomy
) -> dict[str, str]:
    """Writes `cohort/real/`, `cohort/holdout/` and `cohort/synthetic/` as PNG files.

    Returns:
      The person behind each planted copy: {synthetic id: patient}.
    """
    keys = jax.random.split(jax.random.key(seed), 4)
    total = size.real + size.holdout + size.unrelated
    people = phantom.sample_subjects(keys[0], total)
    # One contrast, as one sequence of one scanner gives; heads lie a little differently.
    scans = phantom.sample_scans(keys[1], total, contrast=phantom.Contrast.T1)
    images = np.concatenate(
        [
            np.asarray(
                phantom.slices(
                    jax.random.fold_in(keys[2], start),
                    *jax.tree.map(lambda x, s=start: x[s : s + 10], (people, scans)),
                    anatomy=anatomy,
                )
            )
            for start in range(0, total, 10)
        ]
    )
    real, holdout, unrelated = np.split(images, [size.real, size.real + size.holdout])
    for name, group in (("real", real), ("holdout", holdout)):
        for number, image in enumerate(group):
            workspace.write(
                f"{_COHORT}/{name}/{name[0]}{number:04d}_t1.png", png(image), access=_OPEN
            )
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(size.real, size.copies, replace=False))
    config = augment.AugmentConfig.copies()
    draw, noise = jax.random.split(keys[3])
    params = augment.sample_params(draw, real[chosen].shape, config)
    copies = np.asarray(augment.augment(real[chosen], params, noise))
    truth = {}
    order = rng.permutation(size.copies + size.unrelated)
    for place, image, source in zip(
        order,
        [*copies, *unrelated],
        [*chosen, *[-1] * size.unrelated],
        strict=True,
    ):
        name = f"synthetic_{place:04d}.png"
        workspace.write(f"{_COHORT}/synthetic/{name}", png(image), access=_OPEN)
        if source >= 0:
            truth[name] = f"r{source:04d}"
    return truth


def demo(
    out: Path,
    *,
    size: CohortSize = CohortSize(),
    seed: int = 7,
    on_progress: Progress = lambda done, total, what: None,
) -> DemoResult:
    """Makes a cohort under `out`, audits it, and compares with what was planted.

    Args:
      out: directory; the report lies in `out/audit`.
      size: how many images.
      seed: of the cohort.
      on_progress: as for `audit`.
    """
    anatomy = anatomies.load_anatomy()
    with Workspace.open(out, command="demo") as workspace:
        mark = {"anatomy": anatomy.source, "seed": seed, **dataclasses.asdict(size)}
        workspace.bind("demo", mark)
        truth_path = workspace.path(f"{_COHORT}/planted.json")
        # The listing comes last: with it the cohort is whole, unless someone has taken of it since.
        names = [name for name in workspace if name.startswith(f"{_COHORT}/")]
        if f"{_COHORT}/planted.json" in names and all(map(workspace.intact, names)):
            truth = json.loads(truth_path.read_text(encoding="utf-8"))["planted"]
        else:
            phantoms = size.real + size.holdout + size.unrelated
            on_progress(0, phantoms, "making phantoms")
            truth = make_cohort(workspace, size=size, seed=seed, anatomy=anatomy)
            content = json.dumps({"planted": truth}).encode()
            workspace.write(f"{_COHORT}/planted.json", content, access=_OPEN)
            on_progress(phantoms, phantoms, "making phantoms")
        cohort = workspace.root / _COHORT
        result = audit(
            cohort / "real",
            cohort / "synthetic",
            holdout=cohort / "holdout",
            out=workspace.root / "audit",
            settings=AuditSettings(subject_regex="^([a-z][0-9]+)_"),
            on_progress=on_progress,
        )
    called = {m.synthetic_id: m for m in result.nearest if m.label is not Label.UNRELATED}
    right = [n for n, person in truth.items() if n in called and called[n].subject_id == person]
    return DemoResult(
        audit=result,
        planted=len(truth),
        found=len(right),
        exact=sum(called[name].label is Label.EXACT for name in right),
        false=len(called.keys() - truth.keys()),
        unrelated=size.unrelated,
        anatomy=anatomy.source,
    )
