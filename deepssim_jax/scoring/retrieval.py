"""How candidates are found among all pairs."""

import dataclasses
import enum

# The aligned search of so many takes an hour and a half on two cores, half a minute on a large GPU.
_MAX_ALIGNED_PAIRS = 200_000_000


@dataclasses.dataclass(frozen=True)
class Proposals:
    """How many references each way of searching proposes for verification.

    Of many that the aligned search finds, `aligned` are those of the best correlation and `likely`
    those that agree best tile by tile; `in_place` come from the search that moves nothing.
    """

    aligned: int
    likely: int
    in_place: int
    encoder: int

    @property
    def most(self) -> int:
        """References of a query that all ways together can propose."""
        return self.aligned + self.likely + self.in_place + self.encoder


class Retrieval(enum.StrEnum):
    """How candidates are found among all pairs; every candidate is verified from its pixels.

    Where a side has local features they propose in every way. `LOCAL` adds what was not moved, which
    bears noise and blur: of edited copies of four kinds of picture it finds as many as with the encoder's
    nearest, and as with an encoder that always proposes the original (`benchmarks/proposers.py`). The
    aligned search looks through every transformation of a grid; its cost a pair is that of millions of
    operations. The encoder's cosine costs hundreds, and because it ranks less well it proposes more where
    it is alone. `benchmarks/README.md` has the recall of each.

    Examples:
      >>> import deepssim_jax as ds
      >>> ds.AuditSettings(retrieval=ds.Retrieval.BOTH).retrieval.value
      'both'
    """

    AUTO = "auto"
    LOCAL = "local"
    ENCODER = "encoder"
    ALIGNED = "aligned"
    BOTH = "both"

    def resolved(self, *, pairs: int, local_features: bool) -> "Retrieval":
        """What AUTO means for this many pairs, with local features or without; it depends on nothing
        else, so runs agree.
        """
        if self is not Retrieval.AUTO:
            return self
        if local_features:
            return Retrieval.LOCAL
        return Retrieval.BOTH if pairs <= _MAX_ALIGNED_PAIRS else Retrieval.ENCODER

    @property
    def proposals(self) -> Proposals:
        """Candidates of each way; AUTO has none until it is resolved."""
        return {
            Retrieval.LOCAL: Proposals(aligned=0, likely=0, in_place=2, encoder=0),
            Retrieval.ENCODER: Proposals(aligned=0, likely=0, in_place=0, encoder=16),
            Retrieval.ALIGNED: Proposals(aligned=3, likely=2, in_place=1, encoder=0),
            Retrieval.BOTH: Proposals(aligned=3, likely=2, in_place=1, encoder=2),
        }[self]
