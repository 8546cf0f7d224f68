"""Volumes: which synthetic volumes are copies of real ones, in any pose?

Head CT phantoms are the real volumes. One synthetic volume is made from a real one with its axes
exchanged and noise added; the others are phantoms of their own.
"""

import tempfile
from pathlib import Path

import jax
import numpy as np

import deepssim_jax as ds
from deepssim_jax.data.phantom_heads import ct_heads


def main() -> ds.ReplicaResult:
    """Makes the volumes, compares them, and prints the closest real volume of each."""
    heads = np.asarray(ct_heads(jax.random.key(3), 27, size=(32, 32, 32)).volumes)
    real, others = heads[:24], heads[24:]
    noise = np.random.default_rng(0).normal(0, 0.02 * np.ptp(real[4]), real[4].shape)
    with tempfile.TemporaryDirectory() as work:
        folders = Path(work) / "real", Path(work) / "synthetic"
        for folder in folders:
            folder.mkdir()
        for i, volume in enumerate(real):
            np.save(folders[0] / f"patient{i:02d}.npy", volume.astype(np.float32))
        copy = np.transpose(real[4] + noise, (0, 2, 1))[:, ::-1].astype(np.float32)
        np.save(folders[1] / "copy_of_04.npy", np.ascontiguousarray(copy))
        for i, volume in enumerate(others):
            np.save(folders[1] / f"other{i}.npy", volume.astype(np.float32))
        result = ds.replicas(*folders, settings=ds.ReplicaSettings(size=32))

    for match in result.matches:
        # Which volume is closest to an unrelated one means nothing, and differs between machines.
        found = {level.value: best.real_id for level, best in match.levels.items()}
        of = f" of {found['points']}" if match.kind.value == "replica" else ""
        print(f"{match.synthetic_id}: {match.kind.value}{of}")
    return result


if __name__ == "__main__":
    main()
