"""Tables and texts for a terminal."""

from deepssim_jax.cli import console


def test_columns_are_aligned_and_numbers_stand_right():
    rows = [("planted", 40, "exact"), ("found", 1040, "near")]
    assert console.table(rows) == "planted    40  exact\nfound    1040  near"


def test_rows_of_different_length_and_no_rows():
    assert console.table([("a", "b"), ("c",)]) == "a  b\nc"
    assert console.table([]) == ""


def test_control_characters_are_spelled_out():
    assert console.printable("a\nb\x1b[31m\x9b<i>") == "a\\x0ab\\x1b[31m\\x9b<i>"


def test_finish_ends_with_the_paths(capsys):
    console.finish([("verdict", "copies_found")], written=["out/report.html", "out/a\nb"])
    assert capsys.readouterr().out == (
        "verdict  copies_found\n\nwritten:\n  out/report.html\n  out/a\\x0ab\n"
    )


def test_a_long_reason_does_not_widen_its_column():
    reason = "a reason that is longer than any name of a row, " * 2
    lines = console.table([("images", "3"), (reason, "12")]).splitlines()
    assert lines == ["images   3", f"{reason}  12"]
