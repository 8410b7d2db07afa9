"""Options of the command line, and the fields of the request that they set."""

from __future__ import annotations

import pytest

from ocirt.cli import checkpoint, options, restore
from ocirt.criu import options as table
from ocirt.criu import rpc
from ocirt.errors import Error

VERBS = {table.CHECKPOINT: checkpoint, table.RESTORE: restore}
NOTHING = {"manage_cgroups_mode": 6, "empty_ns": 0x40000000}


def fields(verb, *argv):
    return table.fields(verb, options.parse(VERBS[verb].OPTIONS, argv))


def test_every_row_is_a_field_of_crius():
    for _, name, _, _, field, _, _, text in table.OPTIONS:
        assert field in rpc.MESSAGES["criu_opts"], name
        assert text, name


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_given_asks_for_nothing(verb):
    assert fields(verb) == NOTHING


@pytest.mark.parametrize(
    ("verb", "argv", "found"),
    [
        (table.CHECKPOINT, ["--leave-running"], {"leave_running": True}),
        (table.CHECKPOINT, ["--link-remap"], {"link_remap": True}),
        (table.CHECKPOINT, ["--tcp-skip-in-flight"], {"tcp_skip_in_flight": True}),
        (table.CHECKPOINT, ["--page-server", "h:80"], {"ps": {"address": "h", "port": 80}}),
        (table.CHECKPOINT, ["--page-server", "[::1]:80"], {"ps": {"address": "::1", "port": 80}}),
        (table.RESTORE, ["--tcp-close"], {"tcp_close": True}),
        (table.RESTORE, ["--lsm-profile", "apparmor:x"], {"lsm_profile": "apparmor:x"}),
        (table.RESTORE, ["--lsm-mount-context", "c"], {"lsm_mount_context": "c"}),
        (table.RESTORE, ["-no-subreaper", "--no-pivot"], {}),
        *[
            (verb, argv, found)
            for verb in VERBS
            for argv, found in (
                (["--tcp-established"], {"tcp_established": True}),
                (["--ext-unix-sk"], {"ext_unix_sk": True}),
                (["--shell-job"], {"shell_job": True}),
                (["--file-locks"], {"file_locks": True}),
                (["--lazy-pages"], {"lazy_pages": True}),
                (["--auto-dedup"], {"auto_dedup": True}),
                (["--empty-ns", "network"], {}),
                (["--manage-cgroups-mode", "soft"], {"manage_cgroups_mode": 3}),
                (["--manage-cgroups-mode", "full"], {"manage_cgroups_mode": 4}),
                (["--manage-cgroups-mode", "strict"], {"manage_cgroups_mode": 5}),
                (["--manage-cgroups-mode", "ignore"], {"manage_cgroups_mode": 0}),
                (["--network-lock", "nftables"], {"network_lock": 2}),
                (["--network-lock", "skip"], {"network_lock": 3}),
            )
        ],
    ],
)
def test_an_option_is_its_field(verb, argv, found):
    assert fields(verb, *argv) == {**NOTHING, **found}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--manage-cgroups-mode", "x"], "--manage-cgroups-mode: invalid manage-cgroups-mode"),
        (["--empty-ns", "pid"], '--empty-ns: namespace "pid" is not supported'),
        (["--network-lock", "x"], "--network-lock: 'x' is not one of iptables, nftables, skip"),
        (["--page-server", "host"], "Use --page-server ADDRESS:PORT"),
        (["--page-server", ":80"], "Use --page-server ADDRESS:PORT"),
        (["--page-server", "h:"], "Use --page-server ADDRESS:PORT"),
        (["--page-server", "h:0"], "Invalid port number"),
        (["--page-server", "h:65536"], "Invalid port number"),
        (["--page-server", "h:1x"], "Invalid port number"),
    ],
)
def test_a_wrong_value_names_its_option(argv, words):
    with pytest.raises(Error, match=words):
        fields(table.CHECKPOINT, *argv)


@pytest.mark.parametrize(
    ("argv", "version", "words"),
    [
        ([], 29900, "CRIU version 29900 must be 30000 or higher"),
        (["--lsm-profile", "x"], 31500, "--lsm-profile requires at least CRIU 3.16"),
        (["--lsm-mount-context", "x"], 31599, "--lsm-mount-context requires at least CRIU 3.16"),
        (["--network-lock", "skip"], 31600, "--network-lock requires at least CRIU 3.17"),
    ],
)
def test_a_criu_that_would_pass_an_option_over_is_too_old(argv, version, words):
    given = options.parse(restore.OPTIONS, argv)
    with pytest.raises(Error, match=words):
        table.require(table.RESTORE, given, version)
    table.require(table.RESTORE, given, 31700)
