"""`deepssim doctor`: says what is there, as text and as JSON."""

import hashlib
import json
import os
import pathlib

import jax
import pytest

import deepssim_jax
from deepssim_jax.cli import compile_cache
from deepssim_jax.cli.main import main

WEIGHTS = pathlib.Path(deepssim_jax.__file__).parent / "weights"


@pytest.fixture
def facts(capsys):
    assert main(["doctor", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_devices_and_versions(facts):
    assert facts["devices"]["count"] == jax.device_count()
    assert facts["devices"]["platform"] == jax.devices()[0].platform
    assert facts["devices"]["processes"] == 1
    assert facts["versions"]["jax"] == jax.__version__
    assert facts["deepssim_jax"] == deepssim_jax.__version__
    assert facts["threads"]["usable"] >= 1


def test_weights_are_listed_with_their_hash(facts):
    there = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in WEIGHTS.glob("*.safetensors")
    }
    assert {w["name"]: w["sha256"] for w in facts["weights"]} == there


def test_extras_say_what_they_enable(facts):
    assert set(facts["extras"]) == {"dicom", "phantom", "convert", "tpu", "cuda12", "cuda13"}
    assert all(extra["enables"] for extra in facts["extras"].values())


def test_text(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"jax               {jax.__version__}" in out
    assert "compile cache" in out


def test_a_launcher_is_recognised(monkeypatch, capsys):
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}.items():
        monkeypatch.setenv(name, value)
    main(["doctor", "--json"])
    assert json.loads(capsys.readouterr().out)["launcher"]["name"] == "SLURM"


def test_a_cache_open_to_others_is_a_problem(monkeypatch, tmp_path, capsys):
    tmp_path.chmod(0o777)
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path))
    main(["doctor", "--json"])
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert any("chmod 700" in problem for problem in problems)


def test_the_cache_is_made_private(monkeypatch, tmp_path):
    monkeypatch.delenv(compile_cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = compile_cache.prepare()
    assert folder == tmp_path / "deepssim_jax" / "compiled"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert os.environ[compile_cache.VARIABLE] == str(folder)
    monkeypatch.delenv(compile_cache.VARIABLE)
    folder.chmod(0o750)
    assert compile_cache.prepare() is None
    assert compile_cache.VARIABLE not in os.environ


def test_a_cache_that_is_a_link_is_not_used(monkeypatch, tmp_path):
    monkeypatch.delenv(compile_cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "deepssim_jax").mkdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "deepssim_jax" / "compiled").symlink_to(tmp_path / "elsewhere")
    assert compile_cache.prepare() is None


@pytest.mark.parametrize(("value", "expected"), [("", None), ("/some/where", "/some/where")])
def test_the_user_may_choose_or_switch_off(monkeypatch, value, expected):
    monkeypatch.setenv(compile_cache.VARIABLE, value)
    folder = compile_cache.prepare()
    assert (str(folder) if folder else None) == expected
