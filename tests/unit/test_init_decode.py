"""The init's decoder against a reading of the wire format in Python, and against noise.

The decoder is compiled with sanitizers into a program that says of each part whether it is well
made; where there is no compiler with sanitizers, these tests skip.
"""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from ocirt.plan import ops
from ocirt.plan.ops import Op

INIT = Path(__file__).resolve().parents[2] / "ocirt" / "init"
HEAD = struct.Struct("=4I")
TYPES = {code: types for code, _, types, _ in ops.OPS}
NAMES = {code: name for code, name, _, _ in ops.OPS}
SLOTS = 1024


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A function: parts in, a verdict for each out."""
    folder = tmp_path_factory.mktemp("init")
    if not shutil.which("cc") or not shutil.which("make"):
        pytest.skip("no C compiler")
    for source in ("Makefile", "fuzz_decode.c", "decode.c", "plan.h", "ops.h"):
        shutil.copy(INIT / source, folder)
    built = subprocess.run(
        ["make", "-s", "check_decode"], cwd=folder, capture_output=True, text=True
    )
    if built.returncode:
        pytest.skip(f"no sanitizers: {built.stderr[-200:]}")

    def verdicts(parts: list[bytes]) -> list[bool]:
        data = b"".join(struct.pack("=I", len(part)) + part for part in parts)
        ran = subprocess.run(
            [folder / "check_decode"], input=data, capture_output=True, timeout=120
        )
        assert ran.returncode == 0, ran.stderr.decode()
        return [byte == ord("1") for byte in ran.stdout]

    return verdicts


def arg_size(kind: str, data: bytes) -> int:
    """Bytes of the argument at the start of data; ValueError when it is not well made."""
    if len(data) < 8:
        raise ValueError
    length, count = struct.unpack_from("=II", data)
    (number,) = struct.unpack_from("=q", data)
    if kind == "i" or (kind == "f" and -1 <= number < SLOTS):
        return 8
    if kind == "s":
        end = 8 + length + 8 - length % 8
        if end <= len(data) and count == 0 and data[8 + length] == 0:
            return end
    if kind == "l":
        end = 8 + length + -length % 8
        text = data[8 : 8 + length]
        if end <= len(data) and text.count(b"\0") == count and (not text or text[-1] == 0):
            return end
    raise ValueError


def well_made(part: bytes) -> bool:
    """The wire format, read a second time and slowly."""
    if len(part) < HEAD.size:
        return False
    magic, first, count, size = HEAD.unpack_from(part)
    body = part[HEAD.size : HEAD.size + size]
    if magic != ops.MAGIC or size != len(body) or size > ops.LARGEST or first + count >= 1 << 31:
        return False
    names: list[str] = []
    try:
        while body:
            code, argc, length = struct.unpack_from("=HHI", body)
            types = TYPES[code]
            if argc != len(types) or not 8 <= length <= len(body) or length % 8:
                return False
            args, body = body[8:length], body[length:]
            for kind in types:
                args = args[arg_size(kind, args) :]
            if args:
                return False
            names.append(NAMES[code])
    except (ValueError, KeyError, struct.error):
        return False
    governed = [names[i + 1 : i + 3] for i, name in enumerate(names) if name == "try"]
    return len(names) == count and all(
        len(two) == 2 and not {"try", "clone"} & set(two) for two in governed
    )


def sample() -> list[Op]:
    """One op of every kind, with arguments of many sizes."""
    found = []
    for number, (_, name, types, _) in enumerate(ops.OPS):
        if name == "try":
            continue
        texts = ["x" * (number * 3 % 17), "", "/dev/null", "é" * number]
        values = {"i": number - 3, "f": "slot", "s": texts[number % 4], "l": texts[: number % 5]}
        found.append(Op(name, tuple(values[kind] for kind in types)))
    found[3:3] = [Op("try"), Op("umask", (1,)), Op("umask", (2,))]
    return found


def encoded(plan: list[Op], first: int = 0) -> bytes:
    return ops.encode(plan, first, {"slot": 7})


def mutate(rng: random.Random, part: bytes) -> bytes:
    """Change a part as a fuzzer would: flips, lengths, cuts, insertions, doublings."""
    data = bytearray(part)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        kind = rng.randrange(6)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            at &= ~3
            data[at : at + 4] = struct.pack(
                "=I", rng.choice([0, 1, 7, 8, 255, 1 << 31, (1 << 32) - 1, rng.randrange(64)])
            )
        elif kind == 2 and at > HEAD.size:
            del data[at:]
        elif kind == 3:
            data[at:at] = bytes(8)
        elif kind == 4:
            at &= ~7
            del data[at : at + 8]
        else:
            at &= ~7
            data += data[at : at + 64]
        if rng.random() < 0.7 and len(data) >= HEAD.size:
            # Most changes would stop at a length that no longer fits, so it is made to fit.
            data[12:16] = struct.pack("=I", len(data) - HEAD.size)
        if len(data) < HEAD.size:
            break
    return bytes(data)


def test_every_op_is_read_to_its_last_byte(decoder):
    parts = [encoded([op]) for op in sample() if op.name != "try"]
    assert decoder([*parts, encoded(sample()), encoded([])]) == [True] * (len(parts) + 2)


@pytest.mark.parametrize("seed", range(4))
def test_the_decoder_and_the_wire_format_agree_about_mutants(decoder, seed):
    rng = random.Random(seed)
    bases = [encoded(rng.sample(sample(), 4)) for _ in range(40)] + [encoded(sample(), 3)]
    parts = [mutate(rng, rng.choice(bases)) for _ in range(3000)]
    parts += [part + struct.pack("=I", 0) for part in bases]
    wanted = [well_made(part) for part in parts]
    got = decoder(parts)
    assert any(wanted[:3000])
    assert [part for part, a, b in zip(parts, wanted, got, strict=True) if a != b] == []


@pytest.mark.parametrize(
    "plan",
    [
        [Op("try")],
        [Op("try"), Op("umask", (1,))],
        [Op("try"), Op("try"), Op("umask", (1,)), Op("umask", (1,))],
        [Op("try"), Op("clone", (0, "")), Op("umask", (1,))],
    ],
    ids=["alone", "without a fallback", "of a try", "of a clone"],
)
def test_a_try_that_governs_too_little_is_refused(decoder, plan):
    assert decoder([encoded(plan)]) == [False]


def test_a_part_that_is_cut_anywhere_is_refused(decoder):
    part = encoded(sample())
    assert not any(decoder([part[:end] for end in range(0, len(part), 3)]))


def test_the_generated_header_is_current():
    assert (INIT / "ops.h").read_text() == ops.header()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("clang"), reason="libFuzzer comes with clang")
def test_libfuzzer_finds_nothing_in_a_short_run(tmp_path):
    for source in ("Makefile", "fuzz_decode.c", "decode.c", "plan.h", "ops.h"):
        shutil.copy(INIT / source, tmp_path)
    built = subprocess.run(["make", "-s", "fuzz_decode"], cwd=tmp_path, capture_output=True)
    if built.returncode:
        pytest.skip("clang without libFuzzer")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for op in sample():
        if op.name != "try":
            (corpus / op.name).write_bytes(encoded([op]))
    (corpus / "all").write_bytes(encoded(sample()))
    ran = subprocess.run(
        ["./fuzz_decode", "-max_total_time=8", "-max_len=8192", "-timeout=5", str(corpus)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
