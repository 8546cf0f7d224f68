"""Whose images are left out: those asked for now, and those that earlier runs in a folder were asked for.

Contract: `FILE` in the kept work of a job holds a random salt and, of each spelling of an id that was ever to
be left out there, the HMAC-SHA256; no id itself. It is written before anything else of the run. What matches
any of them is left out of every later run in that folder.
"""

import dataclasses
import functools
import hmac
import json
import secrets
from collections.abc import Collection
from pathlib import Path
from typing import Any

from deepssim_jax.data.patients import ALIAS, alias, under_any_issuer
from deepssim_jax.data.records import FORGET, Record
from deepssim_jax.workspace import Workspace, WorkspaceError

FILE = "forgotten.json"
_SALT_BYTES = 32


@dataclasses.dataclass(frozen=True)
class Forget:
    """`ids` of patients and images as they were typed; `earlier` are HMACs by `salt` of earlier runs' ids.

    `folders` are the names that may stand before an id, with a slash between.
    """

    ids: frozenset[str] = frozenset()
    earlier: frozenset[str] = frozenset()
    salt: bytes = b""
    folders: tuple[str, ...] = ()

    @classmethod
    def of(cls, ids: Collection[str], out: Workspace | None = None) -> "Forget":
        """These ids, and what earlier runs in `out` were asked to leave out.

        Raises:
          WorkspaceError: the file of earlier runs is damaged.
        """
        kept = None if out is None else _kept(out)
        if kept is None:
            return cls(frozenset(ids), salt=secrets.token_bytes(_SALT_BYTES))
        return cls(frozenset(ids), frozenset(kept["ids"]), bytes.fromhex(kept["salt"]))

    def __bool__(self) -> bool:
        return bool(self.ids or self.earlier)

    def within(self, folder: Path) -> "Forget":
        """For one of several folders: ids may begin with its name, or with those above it, too.

        How many of these tell folders apart depends on which are given; an earlier run may have had others.
        """
        parts = folder.expanduser().resolve().parts
        names = ("/".join(parts[depth:]).strip("/") for depth in range(len(parts)))
        return dataclasses.replace(self, folders=tuple(name for name in names if name))

    @functools.cached_property
    def asked(self) -> frozenset[str]:
        """Every spelling of the typed ids."""
        return frozenset().union(*map(_spellings, self.ids))

    def names(self, image_id: str, record: Record | None = None) -> set[str]:
        """All that an image may be called by; `record` None where it has none."""
        found = {image_id}
        if record is not None and record.subject_id is not None:
            found.add(record.subject_id)
            # Where a name or a table tells the patients, an id of the header can be another's there.
            if record.any_issuer is not None and record.subject_id.startswith(ALIAS):
                found.add(record.any_issuer)
        return found | {f"{folder}/{name}" for folder in self.folders for name in found}

    def known(self, names: Collection[str]) -> bool:
        """Whether an earlier run was asked to leave out what has one of these names."""
        return bool(self.earlier) and any(self._hashed(name) in self.earlier for name in names)

    def unmatched(self, names: Collection[str]) -> frozenset[str]:
        """The typed ids that none of these names is."""
        return frozenset(x for x in self.ids if _spellings(x).isdisjoint(names))

    def remember(self, out: Workspace) -> None:
        """Notes what is left out from now on in this folder, before anything of it goes."""
        out.processes.wait()  # until every process has read the file
        known = self.earlier | {self._hashed(name) for name in self.asked}
        if known != self.earlier:
            _keep(out, {"salt": self.salt.hex(), "ids": sorted(known), "gone": False})

    def _hashed(self, name: str) -> str:
        return hmac.digest(self.salt, name.encode("utf-8", "surrogatepass"), "sha256").hex()


def still_there(out: Workspace) -> bool:
    """Whether files of earlier runs may hold what is to be left out: `all_gone` was not said since."""
    kept = _kept(out)
    return kept is not None and not kept["gone"]


def all_gone(out: Workspace) -> None:
    """Notes that no output holds anything of what is left out."""
    if still_there(out):
        _keep(out, {**(_kept(out) or {}), "gone": True})


def said_before(count: int) -> tuple[str, ...]:
    """What is said at the end of a run, in no file, of images that an earlier run was asked to leave out."""
    if not count:
        return ()
    them = "1 of them was" if count == 1 else f"{count:,} of them were"
    return (
        f"{them} left out because an earlier run in this folder was asked to {FORGET}; another folder has "
        "them back.",
    )


def _spellings(name: str) -> set[str]:
    """An id as it was typed, and, as it may be a PatientID of DICOM, the hashes that stand for it."""
    heads = [name[: place + 1] for place, letter in enumerate(name) if letter == "/"]
    hashed = (
        head + made(name.removeprefix(head))
        for head in ("", *heads)
        for made in (alias, under_any_issuer)
    )
    return {name, *hashed}


def _kept(out: Workspace) -> dict[str, Any] | None:
    content = out.kept(FILE)
    if content is None:
        return None
    try:
        kept = json.loads(content)
        whole = bool(bytes.fromhex(kept["salt"])) and isinstance(kept["gone"], bool)
        if not whole or not all(isinstance(x, str) for x in kept["ids"]):
            raise ValueError("it holds something else")
    except (ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(
            f"{FILE!r} in the kept work of {out.root.name!r}, which says what to leave out, is damaged; "
            "put it back, or give another folder and --forget for everyone who is to be left out"
        ) from error
    return kept


def _keep(out: Workspace, content: dict[str, Any]) -> None:
    out.keep(FILE, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
