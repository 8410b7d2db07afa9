"""The config reader against noise: a config or one sentence, never a traceback, never a hang.

Half a second each by default; OCIRT_FUZZ_SECONDS=600 for a night's worth, with another seed
each time (it is printed on failure).
"""

from __future__ import annotations

import os
import random
import time
from copy import deepcopy

import pytest

from ocirt import checks, jsonio, shape
from ocirt.errors import Error
from tests.unit.documents import engine, places

SECONDS = float(os.environ.get("OCIRT_FUZZ_SECONDS", "0"))
SEED = random.randrange(2**32) if SECONDS else 1

PIECES = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud800", b"\\udc00", b"null",
    b"true", b"-", b"1e9", b"1e999", b"1.0", b"-0", b"9" * 40, b"NaN", b"Infinity", b"\0", b"\xff",
    b"\xef\xbb\xbf", b" ", b"\n", b"[" * 300, b'{"a":' * 300, b'"linux":null,', b'"process":{},',
]  # fmt: skip

ODD = [
    None, True, False, 0, -1, 1, 2**31, 2**32, 2**63, 2**64, -(2**63), 0.0, 1.5, "", "\0", "/",
    "..",
    "x" * 5000, [], {}, [None], [[]], {"": None}, {"type": "pid"}, [{}], "=", "0-", "1" * 5000,
]  # fmt: skip


def read(text):
    """Do with a config what create does; return the sentence of a refusal."""
    try:
        config = jsonio.parse(text)
        shape.check(config)
    except Error as error:
        found = [str(error)]
    else:
        unprivileged = len(text) % 2 == 0
        found = [": ".join(fault) for fault in checks.faults(config, unprivileged=unprivileged)]
    for sentence in found:
        assert sentence
        assert "does not exist" not in sentence
    return found


def noisy(text, dice):
    """Return the text with some bytes changed, taken out, put in, repeated or cut off."""
    text = bytearray(text)
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(text) + 1)
        to = min(len(text), at + dice.choice([1, 1, 2, 8, 200]))
        change = dice.randrange(6)
        if change == 0 and at < len(text):
            text[at] = dice.randrange(256)
        elif change == 1:
            del text[at:to]
        elif change == 2:
            text[at:at] = dice.choice(PIECES)
        elif change == 3:
            text[at:to] = dice.choice(PIECES)
        elif change == 4:
            text[at:at] = text[at:to] * dice.randint(1, 3)
        elif dice.randrange(4) == 0:
            del text[at:]
    return bytes(text)


def twisted(dice):
    """Return a config with some values replaced by odd ones, taken out or doubled."""
    config = engine()
    for _ in range(dice.randint(1, 4)):
        *way, last = dice.choice(list(places(config)))
        held = config
        for part in way:
            held = held[part]
        change = dice.randrange(8)
        if change == 0:
            del held[last]
        elif change == 1 and held.__class__ is list:
            held.append(held[last])
        else:
            held[last] = deepcopy(dice.choice(ODD))
    return config


@pytest.mark.parametrize("kind", ["bytes", "values"])
def test_noise_gives_a_config_or_a_sentence(kind):
    dice = random.Random(SEED)
    seed = jsonio.dumps(engine(), indent=1).encode()
    end = time.monotonic() + max(SECONDS / 2, 0.5)
    count = 0
    while time.monotonic() < end:
        text = noisy(seed, dice) if kind == "bytes" else jsonio.dumps(twisted(dice)).encode()
        started = time.monotonic()
        try:
            read(text)
        except Exception as error:
            pytest.fail(f"seed {SEED}, input {count}: {error!r}\n{text!r}")
        assert time.monotonic() - started < 5
        count += 1
    assert count > 10
