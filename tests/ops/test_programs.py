"""A kept function gives its own numbers, and the next process does not trace it."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepssim_jax.ops import programs


@functools.partial(jax.tree_util.register_dataclass, data_fields=("x", "y"), meta_fields=())
@dataclasses.dataclass(frozen=True)
class Both:
    x: jax.Array
    y: jax.Array


TRACED: list[int] = []


def fresh() -> Callable[..., Both]:
    """A function as a new process has it: not traced yet."""

    @functools.partial(jax.jit, static_argnames=("power",))
    def scaled(both: Both, *, power: int) -> Both:
        TRACED.append(power)
        return Both(jnp.sin(both.x) ** power, both.y @ both.x)

    return scaled


GIVEN = Both(*(np.random.default_rng(n).random((8, 8)).astype(np.float32) for n in (0, 1)))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    pytest.importorskip("flatbuffers", reason="traced programs are kept in its form")
    with programs.kept_in(tmp_path):
        yield tmp_path


def test_the_numbers_are_those_of_the_function_and_it_is_traced_once(folder: Path) -> None:
    expected = fresh()(GIVEN, power=3)
    TRACED.clear()
    for _ in range(2):  # a process each
        call = programs.kept(Both)(fresh())
        for _ in range(2):
            found = call(GIVEN, power=3)
            np.testing.assert_array_equal(found.x, expected.x)
            np.testing.assert_array_equal(found.y, expected.y)
    assert TRACED == [3]
    (file,) = folder.iterdir()
    assert file.name.startswith("scaled-") and file.stat().st_mode & 0o077 == 0


def test_other_shapes_and_keywords_are_other_programs(folder: Path) -> None:
    call = programs.kept(Both)(fresh())
    call(GIVEN, power=2)
    call(GIVEN, power=4)
    np.testing.assert_array_equal(
        call(Both(GIVEN.x[:, :4], GIVEN.y), power=2).x, fresh()(GIVEN, power=2).x[:, :4]
    )
    assert len(list(folder.iterdir())) == 3


def test_nothing_is_kept_unless_asked(tmp_path: Path) -> None:
    call = programs.kept(Both)(fresh())
    np.testing.assert_array_equal(call(GIVEN, power=2).x, fresh()(GIVEN, power=2).x)
    traced = jax.jit(lambda both: call(both, power=2).y)(GIVEN)
    np.testing.assert_array_equal(traced, fresh()(GIVEN, power=2).y)
    assert not list(tmp_path.iterdir())
