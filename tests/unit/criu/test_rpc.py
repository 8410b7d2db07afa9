"""CRIU's messages: the bytes that its own library would write and read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.criu import rpc
from ocirt.errors import Error

# By "Encoding" of protobuf.dev: each field its number << 3 | wire type, then the value.
GOLDEN = [
    ("criu_req", {"type": rpc.VERSION}, "080a"),
    ("criu_req", {"type": rpc.NOTIFY, "notify_success": True}, "0806 1801"),
    ("criu_req", {"type": rpc.FEATURE_CHECK, "features": {"mem_track": True}}, "0809 2a02 0801"),
    ("criu_req", {"type": rpc.DUMP, "opts": {"images_dir_fd": 300}}, "0801 1203 08ac02"),
    ("criu_opts", {"pid": 1, "leave_running": False}, "1001 1800"),
    ("criu_opts", {"log_file": "dump.log"}, "5208 64756d702e6c6f67"),
    # A field above 15 takes two bytes for its number.
    ("criu_opts", {"orphan_pts_master": True}, "9003 01"),
    ("criu_opts", {"lsm_mount_context": "é"}, "fa03 02 c3a9"),
    # A negative number is its two's complement in 64 bits.
    ("criu_opts", {"status_fd": -1}, "8803 ffffffffffffffffff01"),
    ("criu_opts", {"empty_ns": 0x40000000}, "b002 8080808004"),
    ("criu_opts", {"external": ["a", "bc"]}, "aa02 01 61 aa02 02 6263"),
    ("criu_opts", {"external": []}, ""),
    (
        "criu_opts",
        {"ext_mnt": [{"key": "/a", "val": "/b"}]},
        "ba01 08 0a02 2f61 1202 2f62",
    ),
    ("criu_opts", {"ps": {"address": "h", "port": 7}}, "5a05 0a0168 1007"),
    ("criu_resp", {"type": rpc.RESTORE, "success": True, "restore": {"pid": 9}},
     "0802 1001 2202 0809"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "values", "data"), GOLDEN)
def test_messages_are_written_as_their_bytes(message, values, data):
    assert rpc.encode(message, values).hex() == data.replace(" ", "")


def test_fields_are_written_in_the_order_of_their_numbers():
    values = {"network_lock": 3, "pid": 2, "images_dir_fd": 1}
    assert rpc.encode("criu_opts", values).hex() == "080110028004" + "03"


def test_a_field_that_is_unknown_is_a_fault_of_ours():
    with pytest.raises(AssertionError):
        rpc.encode("criu_opts", {"pidd": 1})


def test_a_path_may_hold_bytes_that_are_no_text():
    data = rpc.encode("criu_opts", {"root": "/\udcff"})
    assert data.endswith(b"/\xff")
    assert rpc.decode("criu_opts", data) == {"root": "/\udcff"}


def test_an_answer_is_read_with_what_it_holds():
    data = bytes.fromhex("0806 1001 2a09 0a05" + b"hello".hex() + "1007")
    found = rpc.decode("criu_resp", data)
    assert found == {"type": 6, "success": True, "notify": {"script": "hello", "pid": 7}}


def test_negative_numbers_come_back_negative():
    data = rpc.encode("criu_resp", {"type": 1, "success": False, "cr_errno": -3})
    assert rpc.decode("criu_resp", data)["cr_errno"] == -3
    # Some write 32 bits only.
    assert rpc.decode("criu_resp", b"\x38\xfd\xff\xff\xff\x0f")["cr_errno"] == -3


def test_what_later_versions_add_is_passed_over():
    more = bytes.fromhex("f001 01fa01 03 6162638102 01020304050607088502 01020304")
    assert rpc.decode("criu_resp", more + b"\x08\x01" + more) == {"type": 1}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x08", "cut short"),
        (b"\x08\x80", "cut short"),
        (b"\x2a\x05ab", "cut short"),
        (b"\x2a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "cut short"),
        (b"\x85\x02\x01", "cut short"),
        (b"\x80" * 11, "a number without end"),
        (b"\x0b", "wire type 3"),
        (b"\x0a\x01a", "type of wire type 2"),
        (b"\x28\x01", "notify of wire type 0"),
        (b"\x2a\x02\x0a\x09", "cut short"),  # inside
    ],
)
def test_what_is_no_message_is_an_error(data, words):
    with pytest.raises(Error, match=f"criu sent what is no message: {words}"):
        rpc.decode("criu_resp", data)


@given(st.binary(max_size=200))
def test_no_bytes_can_do_more_than_be_refused(data):
    try:
        found = rpc.decode("criu_resp", data)
    except Error:
        return
    assert found.keys() <= rpc.MESSAGES["criu_resp"].keys()


def test_no_two_fields_of_a_message_share_a_number():
    for message, fields in rpc.MESSAGES.items():
        numbers = [number for number, _ in fields.values()]
        assert len(set(numbers)) == len(numbers), message
        for name, (_, kind) in fields.items():
            known = {rpc.INT, rpc.UINT, rpc.BOOL, rpc.STRING, *rpc.MESSAGES}
            assert kind.removesuffix("*") in known, name
