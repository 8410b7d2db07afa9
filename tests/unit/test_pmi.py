"""The PMI-1 server, spoken to as a client would."""

from __future__ import annotations

import os
import socket

import pytest

from ocirt import pmi


class Rank:
    """One client."""

    def __init__(self, server, number):
        before = set(server.clients)
        self.server = server
        self.socket = socket.socket(fileno=os.dup(server.open(number)))
        server.close(number)
        self.socket.settimeout(5)
        (self.fd,) = set(server.clients) - before

    def tell(self, text):
        """Send, and have the server listen; whether it goes on with us."""
        self.socket.sendall(text.encode())
        return self.server.hear(self.fd)

    def heard(self):
        return self.socket.recv(65536).decode()

    def ask(self, text):
        assert self.tell(text + "\n") is True
        return self.heard()


@pytest.fixture
def job():
    """Make a server with ranks: (ranks, what was aborted)."""
    made = []

    def make(size):
        aborted = []
        server = pmi.Server(size, "job", lambda *what: aborted.append(what))
        ranks = [Rank(server, number) for number in range(size)]
        made.extend([ranks, server])
        return ranks, aborted

    yield make
    for ranks, server in zip(made[::2], made[1::2], strict=True):
        for rank in ranks:
            rank.socket.close()
        for client in list(server.clients.values()):
            client.socket.close()


CHAT = [
    ("cmd=init pmi_version=1 pmi_subversion=1",
     "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0\n"),
    ("cmd=init pmi_version=2 pmi_subversion=0",
     "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=-1\n"),
    ("cmd=get_maxes", "cmd=maxes rc=0 kvsname_max=256 keylen_max=64 vallen_max=1024\n"),
    ("cmd=get_appnum", "cmd=appnum rc=0 appnum=0\n"),
    ("cmd=get_my_kvsname", "cmd=my_kvsname rc=0 kvsname=kvs_job\n"),
    ("cmd=get_universe_size", "cmd=universe_size rc=0 size=2\n"),
    ("cmd=get kvsname=kvs_job key=PMI_process_mapping",
     "cmd=get_result rc=0 msg=success value=(vector,(0,1,2))\n"),
    ("cmd=get kvsname=kvs_job key=nobody", "cmd=get_result rc=-1 msg=key_not_found\n"),
    ("cmd=get kvsname=other key=PMI_process_mapping",
     "cmd=get_result rc=-1 msg=key_not_found\n"),
    ("cmd=put kvsname=kvs_job key=a value=b=c d value=e", "cmd=put_result rc=0 msg=success\n"),
    ("cmd=put kvsname=kvs_job key= value=b",
     "cmd=put_result rc=-1 msg=not_a_key_and_value_of_this_job\n"),
    (f"cmd=put kvsname=kvs_job key=a value={'x' * 1024}",
     "cmd=put_result rc=-1 msg=not_a_key_and_value_of_this_job\n"),
    (f"cmd=put kvsname=kvs_job key={'x' * 64} value=b",
     "cmd=put_result rc=-1 msg=not_a_key_and_value_of_this_job\n"),
    ("mcmd=spawn\nnprocs=3\nexecname=x\nendcmd",
     "cmd=spawn_result rc=-1 msg=spawn_is_not_supported\n"),
    ("cmd=finalize", "cmd=finalize_ack rc=0\n"),
]  # fmt: skip


@pytest.mark.parametrize(("question", "answer"), CHAT)
def test_questions_and_answers(job, question, answer):
    (rank, _), _ = job(2)
    assert rank.ask(question) == answer


def test_what_one_rank_puts_another_gets(job):
    (one, two), _ = job(2)
    one.ask("cmd=put kvsname=kvs_job key=card value=b=c d value=e")
    assert two.ask("cmd=get kvsname=kvs_job key=card") == (
        "cmd=get_result rc=0 msg=success value=b=c d value=e\n"
    )


def test_the_barrier_opens_when_all_are_in(job):
    ranks, _ = job(3)
    for _ in range(2):
        for rank in ranks[1:]:
            assert rank.tell("cmd=barrier_in\n") is True
            rank.socket.setblocking(False)
            with pytest.raises(BlockingIOError):
                rank.heard()
            rank.socket.settimeout(5)
        ranks[0].tell("cmd=barrier_in\n")
        assert [rank.heard() for rank in ranks] == ["cmd=barrier_out rc=0\n"] * 3


def test_lines_may_come_in_pieces(job):
    (rank,), _ = job(1)
    assert rank.tell("cmd=get_app") is True
    assert rank.tell("num\ncmd=get_univ") is True
    assert rank.heard() == "cmd=appnum rc=0 appnum=0\n"
    assert rank.ask("erse_size") == "cmd=universe_size rc=0 size=1\n"


@pytest.mark.parametrize(
    ("text", "code"),
    [("exitcode=3", 3), ("exitcode=259", 3), ("exitcode=-2", 1), ("", 1), ("exitcode=x", 1)],
)
def test_abort_asks_for_the_end(job, text, code):
    (_, rank), aborted = job(2)
    rank.tell(f"cmd=abort {text}\n")
    assert aborted == [(1, code)]


@pytest.mark.parametrize(
    "text",
    [
        "nonsense\n",
        "cmd=\n",
        "cmd=line\n",
        "cmd=__class__\n",
        "\n",
        "\0\xff\n",
        "x" * (pmi.LONGEST + 1),
    ],
)
def test_nonsense_ends_the_conversation_with_that_rank_alone(job, text):
    (one, two), _ = job(2)
    assert one.tell(text) is False
    assert one.heard() == ""
    assert two.ask("cmd=get_appnum") == "cmd=appnum rc=0 appnum=0\n"
    assert one.server.hear(one.fd) is False


def test_a_rank_that_never_reads_is_given_up(job):
    (rank,), _ = job(1)
    text = "cmd=get_maxes\n" * 1000
    for _ in range(1000):
        try:
            if not rank.tell(text):
                return
        except (BrokenPipeError, ConnectionResetError):
            return
    raise AssertionError


def test_the_store_has_a_limit(job, monkeypatch):
    monkeypatch.setattr(pmi, "MOST", 100)
    (rank,), _ = job(1)
    full = "cmd=put_result rc=-1 msg=no_room_left\n"
    good = "cmd=put_result rc=0 msg=success\n"
    put = "cmd=put kvsname=kvs_job "
    assert rank.ask(f"{put}key=a value={'x' * 90}") == good
    assert rank.ask(f"{put}key=b value={'x' * 90}") == full
    assert rank.ask(f"{put}key=a value={'y' * 95}") == good
    assert rank.ask(f"{put}key=a value=y") == good
    assert rank.ask(f"{put}key=b value={'x' * 90}") == good


def test_a_rank_that_goes_is_forgotten(job):
    (rank,), _ = job(1)
    rank.socket.close()
    assert rank.server.hear(rank.fd) is False
    assert rank.server.clients == {}
