"""Documentation and code keep to one vocabulary: docs/explain/glossary.md.

Code in backticks, code blocks and generated parts keep the names that flags and files have.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMES = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "deepssim_jax/weights/README.md",
)
PAGES = [*(ROOT / name for name in NAMES), *sorted((ROOT / "docs").rglob("*.md"))]
# What was written once, and the standard term.
REPLACED = {
    r"strangers?": "image of another patient, unrelated image",
    r"(the|in-|this|that) ?house": "institution, package",
    r"plant(ed|s|ing)?": "positive control, copies made from your own images",
    r"likeness": "structure score",
    r"sameness": "change score",
    r"cascade|verified scores?": "copy score",
    r"(how )?alike": "similar, similarity",
    r"told|tells": "reported, predicted, conditioned on, identifies",
    r"says|said": "states, reports, shows",
    r"stands?": "is, is stored, accepted",
    r"safeguard(s|ed)?|guard(s|ed)?": "release screening, screened",
    r"residual rate": "missed-copy rate",
    r"drawn anew": "bootstrap",
    r"giv(es?|en|ing) away": "disclose",
    r"hair's breadth": "tolerance",
    r"set aside": "quarantined",
    r"doubles": "duplicates",
    r"misfits?": "mismatch",
    r"films?": "radiograph",
    r"replicas?": "copy",
    r"hold-?outs?": "held-out images",
    r"steer(s|ed|ing)?": "guided away",
    r"half of the patients|halves": "tuning split, reporting split",
    r"unmoved|in place": "without alignment, in the same position",
    r"echoes": "batch reuse",
    r"public face": "public API",
}
# Where an old word is what a quoted output or a glossary entry is about.
QUOTED = {
    ("glossary.md", "planted"),
    ("first_audit.md", "Planted"),
}

PACKAGE = ROOT / "deepssim_jax"
# The same in identifiers, comments and messages of the code; keys of files and columns stay.
REPLACED_IN_CODE = {
    "told": "conditioned on, reported, shown; for `told apart`: distinguished",
    "halves|halved": "splits; bfloat16",
    "strangers?": "image of another patient, unrelated image",
    "unmoved": "in_place, without alignment",
    "likeness": "structure score",
    "house": "institution, package",
    "rooms?": "package, layer; space, margin",
    "half of the patients": "tuning split, reporting split",
}


def prose(text: str) -> str:
    """A page without its code, links' targets, directives and comments; lines stay where they are."""

    def blank(found: re.Match[str]) -> str:
        return "\n" * found[0].count("\n")

    text = re.sub(r"^(`{3,}|:{3,}).*?^\1", blank, text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`]*`", blank, text)
    text = re.sub(r"<!--.*?-->", blank, text, flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)", "]", text)


def findings(name: str, text: str) -> list[str]:
    """Every replaced term of a page, with its line and the standard one."""
    out = []
    for number, line in enumerate(prose(text).splitlines(), start=1):
        for old, new in REPLACED.items():
            for found in re.finditer(rf"\b(?:{old})\b", line, flags=re.IGNORECASE):
                if (name, found[0]) not in QUOTED:
                    out.append(f"{name}:{number}: {found[0]!r}: write {new}")
    return out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_use_the_standard_terms(page):
    assert findings(page.name, page.read_text(encoding="utf-8")) == []


def test_a_replaced_term_is_found_with_its_line():
    assert findings("page.md", "A copy.\nOf two strangers.") == [
        "page.md:2: 'strangers': write image of another patient, unrelated image"
    ]


def test_code_keeps_its_names():
    text = "Use `deepssim replicas`.\n\n```bash\ndeepssim replicas --plant=3\n```\nThe end."
    assert findings("page.md", text) == []
    assert prose(text).count("\n") == text.count("\n")


def code_findings(path: str, text: str) -> list[str]:
    """Every replaced word of a file of the package, also as a part of a name, with its line."""
    out = []
    for number, line in enumerate(text.splitlines(), start=1):
        for old, new in REPLACED_IN_CODE.items():
            for found in re.finditer(rf"(?<![a-z])(?:{old})(?![a-z])", line, flags=re.IGNORECASE):
                out.append(f"{path}:{number}: {found[0]!r}: write {new}")
    return out


def test_code_uses_the_standard_terms():
    files = [f for kind in ("py", "jinja", "js") for f in PACKAGE.rglob(f"*.{kind}")]
    assert len(files) > 300
    assert [
        line
        for path in sorted(files)
        for line in code_findings(
            path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")
        )
    ] == []


def test_a_replaced_word_is_found_inside_a_name():
    assert code_findings("ops/x.py", "A = 1\nnearest_strangers = household") == [
        "ops/x.py:2: 'strangers': write image of another patient, unrelated image"
    ]
