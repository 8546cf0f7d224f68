"""The audit on all films: what the README says of it.

    pytest -m slow -s tests/audit/test_films.py

250 films of whole patients are the real side; the synthetic side is 200 copies of them and every
film of the other patients. Thresholds come from the real side alone.
"""

from pathlib import Path

import pytest

from deepssim_jax.audit.audit import AuditSettings, audit
from deepssim_jax.audit.result import Label
from tests.audit import planted


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_copies_among_films(data_dir: Path, tmp_path: Path, seed: int) -> None:
    truth = planted.write_films(
        data_dir / "cxr", tmp_path, real=250, copies=200, others=None, seed=seed
    )
    result = audit(
        tmp_path / "real",
        tmp_path / "synthetic",
        settings=AuditSettings(subject_regex=r"^([0-9]+)_"),
    )
    copies = [m for m in result.nearest if m.synthetic_id in truth]
    others = [m for m in result.nearest if m.synthetic_id not in truth]
    first = sum(truth[m.synthetic_id] == m.real_id for m in copies)
    called = sum(m.label is not Label.UNRELATED for m in copies)
    false = sum(m.label is not Label.UNRELATED for m in others)
    print(
        f"seed {seed}: original first {first}/{len(copies)}, called a copy {called}/{len(copies)}, "
        f"others called {false}/{len(others)}; near {result.thresholds.near:.3f}, lowest copy "
        f"{min(m.verified_score for m in copies):.3f}, highest other "
        f"{max(m.verified_score for m in others):.3f}"
    )
    assert len(copies) == 200 and len(others) > 200
    assert first >= 0.99 * len(copies)
    assert called >= 0.99 * len(copies)
    assert false <= 0.005 * len(others)
