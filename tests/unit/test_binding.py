"""Which CPUs a rank gets, on machines made of files."""

from __future__ import annotations

import pytest

from ocirt import binding
from ocirt.errors import Error


@pytest.fixture
def machine(tmp_path):
    """Two sockets of two nodes of two cores of two threads; threads are 8 apart, as on x86."""

    def make(sibling="core_cpus_list"):
        for cpu in range(16):
            core = cpu % 8
            folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
            folder.mkdir(parents=True)
            (folder / sibling).write_text(f"{core},{core + 8}\n")
            (folder / "physical_package_id").write_text(f"{core // 4}\n")
        for node in range(4):
            folder = tmp_path / f"sys/devices/system/node/node{node}"
            folder.mkdir(parents=True)
            first = 2 * node
            (folder / "cpulist").write_text(f"{first}-{first + 1},{first + 8}-{first + 9}\n")
        return str(tmp_path)

    return make


ALL = list(range(16))


@pytest.mark.parametrize("sibling", ["core_cpus_list", "thread_siblings_list"])
def test_units_are_those_of_the_machine(machine, sibling):
    root = machine(sibling)
    assert binding.units("core", ALL, root) == [[n, n + 8] for n in range(8)]
    assert binding.units("numa", ALL, root) == [[n, n + 1, n + 8, n + 9] for n in (0, 2, 4, 6)]
    assert binding.units("socket", ALL, root) == [
        [0, 1, 2, 3, 8, 9, 10, 11],
        [4, 5, 6, 7, 12, 13, 14, 15],
    ]
    # Both threads of a core next to each other.
    assert binding.units("thread", ALL, root)[:4] == [[0], [8], [1], [9]]


def test_only_what_is_allowed_is_given(machine):
    root = machine()
    assert binding.units("core", [1, 9, 10, 4], root) == [[1, 9], [10], [4]]
    assert binding.bind("core", 2, 1, [4, 10], root) == [[10], [4]]


def test_ranks_get_units_of_their_own(machine):
    root = machine()
    assert binding.bind("core", 3, 1, ALL, root) == [[0, 8], [1, 9], [2, 10]]
    assert binding.bind("core", 2, 2, ALL, root) == [[0, 1, 8, 9], [2, 3, 10, 11]]
    assert binding.bind("thread", 2, 2, ALL, root) == [[0, 8], [1, 9]]


def test_neighbours_share_a_node(machine):
    root = machine()
    nodes = binding.units("numa", ALL, root)
    assert binding.bind("numa", 8, 1, ALL, root) == [nodes[n // 2] for n in range(8)]
    assert binding.bind("numa", 2, 1, ALL, root) == [nodes[0], nodes[2]]
    shared = binding.bind("socket", 16, 1, ALL, root)
    assert [row[0] for row in shared] == [0] * 8 + [4] * 8


def test_a_machine_that_says_nothing_has_cores_of_one_thread(tmp_path):
    assert binding.units("core", [3, 1], str(tmp_path)) == [[1], [3]]
    assert binding.units("numa", [3, 1], str(tmp_path)) == [[1, 3]]
    assert binding.units("socket", [3, 1], str(tmp_path)) == [[1, 3]]


@pytest.mark.parametrize(
    ("kind", "count", "each", "saying"),
    [
        ("core", 9, 1, "--bind core: 9 ranks with a core each, and there are 8"),
        ("core", 5, 2, "--bind core: 5 ranks with 2 cores each, and there are 8"),
        ("thread", 17, 1, "--bind thread: 17 ranks with a thread each, and there are 16"),
        ("numa", 17, 1, "--bind numa: 17 ranks, and there are 16 CPUs"),
        ("numa", 2, 2, "--cpus-per-rank: goes with --bind thread or core only"),
        ("sky", 2, 1, "--bind: sky: not thread, core, socket, numa or none"),
    ],
)
def test_what_cannot_be_is_refused(machine, kind, count, each, saying):
    with pytest.raises(Error, match=f"^{saying}$"):
        binding.bind(kind, count, each, ALL, machine())


@pytest.mark.parametrize(
    ("cpus", "text"),
    [([], ""), ([3], "3"), ([0, 1, 2, 5], "0-2,5"), ([7, 1, 0], "0-1,7")],
)
def test_cpus_are_written_as_the_kernel_does(cpus, text):
    assert binding.word(cpus) == text


def test_a_config_narrows_what_is_allowed():
    everything = binding.allowed()
    assert everything
    assert binding.allowed(str(everything[0])) == everything[:1]
    assert binding.allowed("4000-4001") == []
