"""deepssim_jax finds the synthetic medical images that are copies of a patient's image.

    import deepssim_jax as ds
    result = ds.audit("real/", "synthetic/", out="audit/")

The names below are the whole public interface. Each is imported when it is first used, so that
`import deepssim_jax` itself is quick and loads neither JAX's back ends nor a plotting library.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepssim_jax.audit.audit import AuditSettings as AuditSettings
    from deepssim_jax.audit.audit import audit as audit
    from deepssim_jax.audit.replica_result import ReplicaResult as ReplicaResult
    from deepssim_jax.audit.replica_settings import ReplicaSettings as ReplicaSettings
    from deepssim_jax.audit.replicas import LevelFiles as LevelFiles
    from deepssim_jax.audit.replicas import replicas as replicas
    from deepssim_jax.audit.result import AuditResult as AuditResult
    from deepssim_jax.cli.progress import progress as progress
    from deepssim_jax.data.manifest import InputError as InputError
    from deepssim_jax.data.records import Role as Role
    from deepssim_jax.jobs.duplicate_settings import DuplicateSettings as DuplicateSettings
    from deepssim_jax.jobs.duplicates import duplicates as duplicates
    from deepssim_jax.jobs.duplicates_result import DuplicatesResult as DuplicatesResult
    from deepssim_jax.jobs.encoder_training import TrainedEncoder as TrainedEncoder
    from deepssim_jax.jobs.encoder_training import train_encoder as train_encoder
    from deepssim_jax.jobs.indexing import index as index
    from deepssim_jax.jobs.lookup import LookupAnswer as LookupAnswer
    from deepssim_jax.jobs.lookup import lookup as lookup
    from deepssim_jax.jobs.point_index import PreparedIndex as PreparedIndex
    from deepssim_jax.jobs.point_index import open_index as open_index
    from deepssim_jax.jobs.rate_agreement import AgreementResult as AgreementResult
    from deepssim_jax.jobs.rate_agreement import rate_agreement as rate_agreement
    from deepssim_jax.jobs.review import Reading as Reading
    from deepssim_jax.jobs.review import ReviewResult as ReviewResult
    from deepssim_jax.jobs.review import ReviewSettings as ReviewSettings
    from deepssim_jax.jobs.review import review as review
    from deepssim_jax.nn.encoder import Encoder as Encoder
    from deepssim_jax.nn.encoder import embed as embed
    from deepssim_jax.nn.encoder import encode as encode
    from deepssim_jax.nn.encoder import load_encoder as load_encoder
    from deepssim_jax.nn.explain import PairExplanation as PairExplanation
    from deepssim_jax.nn.explain import explain_pair as explain_pair
    from deepssim_jax.ops.registration import Registration as Registration
    from deepssim_jax.ops.registration import register as register
    from deepssim_jax.ops.search_grid import SearchGrid as SearchGrid
    from deepssim_jax.ops.search_rigid import RigidGrid as RigidGrid
    from deepssim_jax.ops.ssim import ssim as ssim
    from deepssim_jax.ops.ssim import ssim_matrix as ssim_matrix
    from deepssim_jax.ops.transform import MotionModel as MotionModel
    from deepssim_jax.scoring.aligned import AlignedMatches as AlignedMatches
    from deepssim_jax.scoring.aligned import nearest_aligned as nearest_aligned
    from deepssim_jax.scoring.decide import Proportion as Proportion
    from deepssim_jax.scoring.decide import clopper_pearson as clopper_pearson
    from deepssim_jax.scoring.pairs import Neighbours as Neighbours
    from deepssim_jax.scoring.pairs import nearest as nearest
    from deepssim_jax.scoring.retrieval import Retrieval as Retrieval
    from deepssim_jax.scoring.verify import VerifiedPairs as VerifiedPairs
    from deepssim_jax.scoring.verify import verify_pairs as verify_pairs
    from deepssim_jax.scoring.volume_measure import Alignment as Alignment
    from deepssim_jax.scoring.volume_sides import Modality as Modality
    from deepssim_jax.training.config import EncoderConfig as EncoderConfig

__version__ = "0.2.0"

_HOMES = {
    "AgreementResult": "jobs.rate_agreement",
    "AlignedMatches": "scoring.aligned",
    "Alignment": "scoring.volume_measure",
    "AuditResult": "audit.result",
    "AuditSettings": "audit.audit",
    "DuplicateSettings": "jobs.duplicate_settings",
    "DuplicatesResult": "jobs.duplicates_result",
    "Encoder": "nn.encoder",
    "EncoderConfig": "training.config",
    "InputError": "data.manifest",
    "Modality": "scoring.volume_sides",
    "MotionModel": "ops.transform",
    "Neighbours": "scoring.pairs",
    "PairExplanation": "nn.explain",
    "LevelFiles": "audit.replicas",
    "LookupAnswer": "jobs.lookup",
    "PreparedIndex": "jobs.point_index",
    "Proportion": "scoring.decide",
    "Reading": "jobs.review",
    "Registration": "ops.registration",
    "ReplicaResult": "audit.replica_result",
    "ReplicaSettings": "audit.replica_settings",
    "Retrieval": "scoring.retrieval",
    "ReviewResult": "jobs.review",
    "ReviewSettings": "jobs.review",
    "RigidGrid": "ops.search_rigid",
    "Role": "data.records",
    "SearchGrid": "ops.search_grid",
    "TrainedEncoder": "jobs.encoder_training",
    "VerifiedPairs": "scoring.verify",
    "audit": "audit.audit",
    "clopper_pearson": "scoring.decide",
    "duplicates": "jobs.duplicates",
    "embed": "nn.encoder",
    "encode": "nn.encoder",
    "explain_pair": "nn.explain",
    "index": "jobs.indexing",
    "load_encoder": "nn.encoder",
    "lookup": "jobs.lookup",
    "nearest": "scoring.pairs",
    "nearest_aligned": "scoring.aligned",
    "open_index": "jobs.point_index",
    "rate_agreement": "jobs.rate_agreement",
    "progress": "cli.progress",
    "register": "ops.registration",
    "replicas": "audit.replicas",
    "review": "jobs.review",
    "ssim": "ops.ssim",
    "ssim_matrix": "ops.ssim",
    "train_encoder": "jobs.encoder_training",
    "verify_pairs": "scoring.verify",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'deepssim_jax' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"deepssim_jax.{home}"), name)
    globals()[name] = value  # the next look-up finds it without coming here
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Face(types.ModuleType):
    """This module's own type: the package `audit` must not hide the function `audit`.

    Importing `deepssim_jax.audit.result` would otherwise bind the sub-package to `ds.audit`.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
