"""The public face: every name is there, documented, typed and called alike; importing is cheap."""

import dataclasses
import enum
import inspect
import json
import subprocess
import sys
import textwrap
import typing

import pytest

import deepssim_jax as ds
from deepssim_jax import testing

PUBLIC = {name: getattr(ds, name) for name in sorted(ds.__all__)}
PUBLIC |= {f"testing.{name}": getattr(testing, name) for name in testing.__all__}
NAMES = list(PUBLIC)

# Loaded only by what needs them: each costs a user who does not a part of a second, or fails
# where it is not installed.
LAZY = (
    "absl.app", "grain", "jinja2", "matplotlib", "nibabel", "nilearn", "orbax", "PIL", "pydicom",
    "requests", "rich", "skimage", "sklearn", "tensorstore", "torch",
)  # fmt: skip


def _child(code: str, *, timeout: float = 120) -> object:
    """Runs code in a fresh process (its network is closed, too) and returns the JSON it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_contract_of_the_design_is_there():
    promised = {"ssim", "ssim_matrix", "load_encoder", "embed", "nearest", "nearest_aligned"}
    promised |= {"register", "verify_pairs", "audit"}
    assert promised <= set(NAMES)


def test_all_is_what_dir_shows():
    assert set(ds.__all__) <= set(dir(ds))
    assert isinstance(ds.__version__, str)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nearset"):
        ds.nearset  # noqa: B018


@pytest.mark.parametrize("name", NAMES)
def test_it_is_documented(name):
    symbol = PUBLIC[name]
    text = inspect.getdoc(symbol) or ""
    assert len(text) > 20, f"{name} has no docstring"
    # A dataclass without one gets its signature as its docstring.
    assert not text.startswith(f"{symbol.__name__}("), f"{name} has no docstring of its own"


def _own_parameters(symbol):
    return [
        p for p in inspect.signature(symbol).parameters.values() if p.name not in ("self", "cls")
    ]


@pytest.mark.parametrize("name", NAMES)
def test_at_most_two_positional_arguments(name):
    symbol = PUBLIC[name]
    if inspect.isclass(symbol):
        return  # results and settings: checked by the next test
    positional = [
        p.name
        for p in _own_parameters(symbol)
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)
    ]
    assert len(positional) <= 2, f"{name}{tuple(positional)}: make the rest keyword-only"


@pytest.mark.parametrize("name", NAMES)
def test_a_class_is_a_frozen_dataclass_an_enum_or_an_error(name):
    symbol = PUBLIC[name]
    if not inspect.isclass(symbol) or issubclass(symbol, (enum.Enum, Exception)):
        return
    assert dataclasses.is_dataclass(symbol), f"{name} is no dataclass"
    # ml_collections sets the fields that --config.NAME=VALUE names.
    changes = name == "EncoderConfig"
    assert symbol.__dataclass_params__.frozen != changes, f"{name} can be changed after it was made"


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_type(name):
    symbol = PUBLIC[name]
    if inspect.isclass(symbol) and issubclass(symbol, (enum.Enum, Exception)):
        return
    owner = symbol.__init__ if inspect.isclass(symbol) else inspect.unwrap(symbol)
    hints = typing.get_type_hints(owner)
    bare = [p.name for p in _own_parameters(symbol) if p.name not in hints]
    assert not bare, f"{name}: no type for {', '.join(bare)}"
    if not inspect.isclass(symbol):
        assert "return" in hints, f"{name}: no return type"


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_of_a_function_is_described(name):
    symbol = PUBLIC[name]
    if inspect.isclass(symbol):
        return
    text = inspect.getdoc(symbol)
    missing = [p.name for p in _own_parameters(symbol) if p.name not in text]
    assert not missing, f"{name}'s docstring does not say what {', '.join(missing)} is"


def test_import_takes_less_than_two_seconds():
    seconds = min(
        _child("""
            import json, time
            start = time.perf_counter()
            import deepssim_jax
            print(json.dumps(time.perf_counter() - start))
        """)
        for _ in range(3)
    )
    assert seconds < 2


def test_import_loads_no_heavy_or_optional_library():
    loaded = _child(f"""
        import json, sys
        import deepssim_jax
        print(json.dumps([name for name in {LAZY!r} if name in sys.modules]))
    """)
    assert loaded == []


def test_numerical_functions_load_no_reader_or_plotting_library():
    loaded = _child(f"""
        import json, sys
        import deepssim_jax as ds
        ds.ssim, ds.nearest
        print(json.dumps([name for name in {LAZY!r} if name in sys.modules]))
    """)
    assert set(loaded) <= {"rich"}  # flax brings rich


@pytest.mark.parametrize("first", ["deepssim_jax.audit.result", "deepssim_jax.audit.audit"])
def test_audit_is_the_function_whatever_was_imported_before(first):
    """The room `audit` and the function `audit` share a name; the public one is the function."""
    kinds = _child(f"""
        import json
        import {first}
        import deepssim_jax as ds
        ds.AuditResult
        print(json.dumps([type(getattr(ds, name)).__name__ for name in ds.__all__]))
    """)
    assert "module" not in kinds


def test_no_name_is_shadowed_by_a_module():
    """Importing everything must not turn a public function into the module of its name."""
    kinds = _child("""
        import importlib, json, pkgutil
        import deepssim_jax as ds
        for module in pkgutil.walk_packages(ds.__path__, "deepssim_jax."):
            if ".cli." not in module.name and "__main__" not in module.name:
                importlib.import_module(module.name)
        print(json.dumps({name: type(getattr(ds, name)).__name__ for name in ds.__all__}))
    """)
    assert [name for name, kind in kinds.items() if kind == "module"] == []
