"""Global options become decisions."""

from __future__ import annotations

import os

import pytest

from ocirt.cli import options, settings


def given(*argv):
    return settings.Settings(options.parse(settings.OPTIONS, argv, options_first=True))


@pytest.fixture
def user(monkeypatch):
    """Pretend to be somebody."""

    def pretend(uid, *, nested=False, **environment):
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        monkeypatch.setattr(settings, "in_user_namespace", lambda: nested)
        for name in ("XDG_RUNTIME_DIR", "USER"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return pretend


@pytest.mark.parametrize(
    ("uid", "nested", "environment", "root", "rootless"),
    [
        (0, False, {"XDG_RUNTIME_DIR": "/run/user/0"}, "/run/ocirt", False),
        (0, False, {}, "/run/ocirt", False),
        (7, False, {"XDG_RUNTIME_DIR": "/run/user/7"}, "/run/user/7/ocirt", True),
        (7, False, {}, "/run/ocirt", True),
        (0, True, {"XDG_RUNTIME_DIR": "/r", "USER": "root"}, "/run/ocirt", True),
        (0, True, {"XDG_RUNTIME_DIR": "/r", "USER": "me"}, "/r/ocirt", True),
    ],
)
def test_who_calls_decides_the_root(user, uid, nested, environment, root, rootless):
    user(uid, nested=nested, **environment)
    found = given()
    assert (found.root, found.rootless) == (root, rootless)


def test_options_win(user):
    user(7)
    found = given("--root", "/x/../y", "--rootless=false", "--cgroup-manager=disabled")
    assert (found.root, found.rootless, found.cgroup_driver) == ("/y", False, "disabled")


def test_the_root_is_made_for_its_owner_alone(tmp_path):
    found = given("--root", str(tmp_path / "a" / "b"))
    assert found.ensure_root() == str(tmp_path / "a" / "b")
    assert os.stat(found.root).st_mode & 0o7777 == 0o700


def test_a_root_in_the_runtime_directory_is_sticky(user, tmp_path):
    user(os.geteuid() or 7, XDG_RUNTIME_DIR=str(tmp_path))
    found = given()
    found.ensure_root()
    assert os.stat(tmp_path / "ocirt").st_mode & 0o7777 == 0o1700


def test_a_root_that_is_there_is_left_as_it_is(tmp_path):
    os.chmod(tmp_path, 0o755)
    given("--root", str(tmp_path)).ensure_root()
    assert os.stat(tmp_path).st_mode & 0o777 == 0o755
