"""A batch of candidates, judged and kept as columns, so that a run that was stopped goes on there."""

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping

import numpy as np

from deepssim_jax.audit.certificate import Candidate
from deepssim_jax.audit.guard import Guard, Judged, Reason, View
from deepssim_jax.audit.leaving import Leaving
from deepssim_jax.data.records import Rejected


@dataclasses.dataclass(frozen=True)
class Offer:
    """A candidate: its number, what it is called inside, and what would leave of it.

    `leaving` is None if it cannot be judged, and `why` says so; `passing` if another run may judge it.
    """

    index: int
    name: str
    leaving: Leaving | None
    why: str = ""
    passing: bool = False


def judge(offers: Iterable[Offer], guard: Guard, *, most: int | None) -> dict[str, np.ndarray]:
    """Judges a batch, until `most` images are accepted: columns of candidates, and `embeddings`."""
    offers = list(offers)
    views, places = list[View](), dict[int, int]()
    for offer in offers:
        if offer.leaving is not None:
            places[offer.index] = len(views)
            views += offer.leaving.all_views
    judged = guard.judge(views) if views else None
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
        "suffix": np.array([row.suffix for row in rows], np.str_),
        "cosine": np.array([np.nan if row.cosine is None else row.cosine for row in rows]),
        "verified": np.array([np.nan if row.verified is None else row.verified for row in rows]),
        "reason": np.array([row.reason or "" for row in rows], np.str_),
        "why": np.array([offer.why for offer in offers[: len(rows)]], np.str_),
        "sha256": np.array([row.sha256 for row in rows], np.str_),
        "embeddings": judged.embeddings[used] if judged else guard.side.embeddings[:0],
    }


def _row(offer: Offer, judged: Judged | None, place: int | None) -> Candidate:
    leaving = offer.leaving
    if judged is None or place is None or leaving is None:
        return Candidate(offer.name, offer.index, "", None, None, Reason.UNREADABLE, "")
    reason = judged.reason_of(place, len(leaving.all_views))
    written = slice(place, place + len(leaving.views))
    return Candidate(
        name=offer.name,
        index=offer.index,
        suffix=leaving.suffix,
        cosine=round(float(judged.cosine[written].max()), 6),
        verified=round(float(judged.verified[written].max()), 6),
        reason=reason,
        sha256="" if reason else hashlib.sha256(leaving.content).hexdigest(),
    )


def unread(judged: Mapping[str, np.ndarray]) -> list[Rejected]:
    """Those of the rows of `judge` that could not be judged, and why."""
    pairs = zip(judged["name"].tolist(), judged["why"].tolist(), strict=True)
    return [Rejected(name, why) for name, why in pairs if why]


def candidates(judged: Mapping[str, np.ndarray]) -> list[Candidate]:
    """The rows of `judge`."""
    columns = [judged[name].tolist() for name in ("name", "index", "suffix", "cosine", "verified")]
    rest = zip(judged["reason"].tolist(), judged["sha256"].tolist(), strict=True)
    return [
        Candidate(
            name=name,
            index=index,
            suffix=suffix,
            cosine=None if math.isnan(cosine) else cosine,
            verified=None if math.isnan(verified) else verified,
            reason=Reason(reason) if reason else None,
            sha256=digest,
        )
        for name, index, suffix, cosine, verified, (reason, digest) in zip(
            *columns, rest, strict=True
        )
    ]
