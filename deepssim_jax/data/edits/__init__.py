"""Copies by construction, made with NumPy, SciPy and Pillow alone.

Nothing of what detects copies takes part, so that a detector is not measured with itself. `EDITS` is
the list; `Edit.make` makes one copy.
"""

from deepssim_jax.data.edits.catalogue import EDITS
from deepssim_jax.data.edits.types import Edit, Edited, Group, Label, Relation

__all__ = ["EDITS", "Edit", "Edited", "Group", "Label", "Relation"]
