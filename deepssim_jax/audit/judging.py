"""A batch of candidates, judged and kept as columns, so that a run that was stopped goes on there."""

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping

import numpy as np

from deepssim_jax.audit.certificate import Candidate
from deepssim_jax.audit.guard import Guard, Judged, Reason, View
from deepssim_jax.data.records import Rejected


@dataclasses.dataclass(frozen=True)
class Offer:
    """A candidate: its number, the name of its file, the file's bytes, and the image to judge.

    `view` is None if it cannot be judged, and `why` says so; `passing` if another run may judge it.
    """

    index: int
    name: str
    content: bytes
    view: View | None
    why: str = ""
    passing: bool = False


def judge(offers: Iterable[Offer], guard: Guard, *, most: int | None) -> dict[str, np.ndarray]:
    """Judges a batch, until `most` images are accepted: columns of candidates, and `embeddings`."""
    offers = list(offers)
    seen = [(offer, offer.view) for offer in offers if offer.view is not None]
    judged = guard.judge([view for _, view in seen]) if seen else None
    places = {offer.index: place for place, (offer, _) in enumerate(seen)}
    rows: list[Candidate] = []
    used: list[int] = []
    for offer in offers:
        if most is not None and sum(row.reason is None for row in rows) >= most:
            break
        place = places.get(offer.index)
        rows.append(_row(offer, judged, place))
        used += [] if place is None else [place]
    return {
        "name": np.array([row.name for row in rows], np.str_),
        "index": np.array([row.index for row in rows], np.int64),
        "cosine": np.array([np.nan if row.cosine is None else row.cosine for row in rows]),
        "verified": np.array([np.nan if row.verified is None else row.verified for row in rows]),
        "reason": np.array([row.reason or "" for row in rows], np.str_),
        "why": np.array([offer.why for offer in offers[: len(rows)]], np.str_),
        "sha256": np.array([row.sha256 for row in rows], np.str_),
        "embeddings": judged.embeddings[used] if judged else guard.side.embeddings[:0],
    }


def _row(offer: Offer, judged: Judged | None, place: int | None) -> Candidate:
    if judged is None or place is None:
        return Candidate(offer.name, offer.index, None, None, Reason.UNREADABLE, "")
    reason = judged.reason[place]
    return Candidate(
        name=offer.name,
        index=offer.index,
        cosine=round(float(judged.cosine[place]), 6),
        verified=round(float(judged.verified[place]), 6),
        reason=reason,
        sha256="" if reason else hashlib.sha256(offer.content).hexdigest(),
    )


def unread(judged: Mapping[str, np.ndarray]) -> list[Rejected]:
    """Those of the rows of `judge` that could not be judged, and why."""
    pairs = zip(judged["name"].tolist(), judged["why"].tolist(), strict=True)
    return [Rejected(name, why) for name, why in pairs if why]


def candidates(judged: Mapping[str, np.ndarray]) -> list[Candidate]:
    """The rows of `judge`."""
    columns = [judged[name].tolist() for name in ("name", "index", "cosine", "verified")]
    rest = zip(judged["reason"].tolist(), judged["sha256"].tolist(), strict=True)
    return [
        Candidate(
            name=name,
            index=index,
            cosine=None if math.isnan(cosine) else cosine,
            verified=None if math.isnan(verified) else verified,
            reason=Reason(reason) if reason else None,
            sha256=digest,
        )
        for name, index, cosine, verified, (reason, digest) in zip(*columns, rest, strict=True)
    ]
