"""Which programs a kernel executes: the texts of real handlers of binfmt_misc, and why it does not."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from layerwright.errors import MachineLacks
from layerwright.oci.platform import Platform, host_platform, parse_platform
from layerwright.runtime.foreign import (
    Handler,
    Register,
    can_execute,
    deciding,
    executes,
    explain,
    matches,
    parse_handler,
    read_register,
    refuse_foreign,
    smallest_program,
)
from tests.support.emulation import Emulation

ARCHITECTURES = ("386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x")
AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")

# Magic and mask as qemu 7.2 registers them (Debian 12, /usr/lib/binfmt.d; i386 and x86_64: scripts/qemu-binfmt-conf.sh), as the kernel shows them.
QEMU = {
    "386": ("7f454c4601010100000000000000000002000300", "fffffffffffefe00fffffffffffffffffeffffff"),
    "amd64": ("7f454c4602010100000000000000000002003e00", "fffffffffffefe00fffffffffffffffffeffffff"),
    "arm": ("7f454c4601010100000000000000000002002800", "ffffffffffffff00fffffffffffffffffeffffff"),
    "arm64": ("7f454c460201010000000000000000000200b700", "ffffffffffffff00fffffffffffffffffeffffff"),
    "loong64": ("7f454c4602010100000000000000000002000201", "fffffffffffffffc00fffffffffffffffeffffff"),
    "mips64le": ("7f454c4602010100000000000000000002000800", "ffffffffffffff00fefffffffffffffffeffffff"),
    "ppc64le": ("7f454c4602010100000000000000000002001500", "fffffffffffffffcfffffffffffffffffeffff00"),
    "riscv64": ("7f454c460201010000000000000000000200f300", "ffffffffffffff00fffffffffffffffffeffffff"),
    "s390x": ("7f454c4602020100000000000000000000020016", "fffffffffffffffcfffffffffffffffffffeffff"),
}
# Of architectures that no image is for, or that differ in one bit of the header.
OTHERS = {
    "armeb": ("7f454c4601020100000000000000000000020028", "ffffffffffffff00fffffffffffffffffffeffff"),
    "ppc64": ("7f454c4602020100000000000000000000020015", "fffffffffffffffcfffffffffffffffffffeffff"),
    "mipsel": (
        "7f454c46010101000000000000000000020008000000000000000000000000000000000000",
        "ffffffffffffff00fefffffffffffffffeffffff0000000000000000000000000000000020",
    ),
    "riscv32": ("7f454c460101010000000000000000000200f300", "ffffffffffffff00fffffffffffffffffeffffff"),
    "python3.11": ("a70d0d0a", "ffffffff"),
    "jar": ("504b0304", "ffffffff"),
}


def text_of(architecture: str, *, state: str = "enabled", flags: str = "POF") -> str:
    magic, mask = (QEMU | OTHERS)[architecture]
    return f"{state}\ninterpreter /usr/libexec/qemu-binfmt/{architecture}-binfmt-P\nflags: {flags}\noffset 0\nmagic {magic}\nmask {mask}\n"


def handler(architecture: str, *, state: str = "enabled", flags: str = "POF") -> Handler:
    found = parse_handler(f"qemu-{architecture}", text_of(architecture, state=state, flags=flags))
    assert found is not None
    return found


def program_of(architecture: str) -> bytes:
    return smallest_program(Platform("linux", architecture))


def never(program: bytes) -> bool:
    return False


def test_a_handler_is_read_as_the_kernel_shows_it() -> None:
    assert handler("arm64", flags="OCF") == Handler(
        name="qemu-arm64",
        enabled=True,
        interpreter="/usr/libexec/qemu-binfmt/arm64-binfmt-P",
        flags="OCF",
        offset=0,
        magic=bytes.fromhex(QEMU["arm64"][0]),
        mask=bytes.fromhex(QEMU["arm64"][1]),
    )
    assert not handler("arm64", state="disabled").enabled


def test_a_handler_without_a_mask_looks_at_every_bit() -> None:
    found = parse_handler("cli", "enabled\ninterpreter /usr/bin/cli\nflags: \noffset 2\nmagic 4d5a\n")
    assert found is not None
    assert (found.mask, found.offset, found.is_fixed) == (b"\xff\xff", 2, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "enabled\n",
        "enabled\ninterpreter /usr/bin/wine\nflags: \nextension .exe\n",
        "enabled\ninterpreter /x\nflags: F\noffset 0\nmagic \n",
        "enabled\ninterpreter /x\nflags: F\noffset 0\nmagic 7g\n",
        "enabled\ninterpreter /x\nflags: F\noffset zero\nmagic 7f\n",
        "enabled\ninterpreter /x\nflags: F\noffset 0\nmagic 7f45\nmask ff\n",
    ],
)
def test_what_is_no_handler_of_headers_is_passed_over(text: str) -> None:
    assert parse_handler("x", text) is None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_architecture_s_programs_are_matched_by_its_own_handler_alone(architecture: str) -> None:
    program = program_of(architecture)
    assert [one for one in (*QEMU, *OTHERS) if matches(handler(one), program)] == [architecture]
    position_independent = program[:16] + struct.pack(">H" if architecture == "s390x" else "<H", 3) + program[18:]
    assert matches(handler(architecture), position_independent)


def test_a_handler_may_look_behind_the_program_s_end_but_not_behind_what_the_kernel_reads() -> None:
    program = program_of("s390x")
    for offset, found in ((254, True), (255, False), (1 << 31, False)):
        assert matches(Handler(name="x", enabled=True, interpreter="/x", flags="F", offset=offset, magic=b"\0\0", mask=b"\xff\xff"), program) is found


@pytest.mark.parametrize("text", ["windows/amd64", "linux/sparc64", "linux/wasm"])
def test_of_other_platforms_no_program_is_known_and_no_handler_matches(text: str) -> None:
    assert smallest_program(parse_platform(text)) == b""
    anything = Handler(name="x", enabled=True, interpreter="/x", flags="F", offset=0, magic=b"\0", mask=b"\0")
    assert not can_execute(b"", Register(handlers=(anything,)), lambda program: True)


@pytest.mark.parametrize(
    ("register", "can"),
    [
        (Register(handlers=(handler("arm64"),)), True),
        (Register(handlers=(handler("arm"), handler("arm64", flags="OCF"), handler("s390x", flags=""))), True),
        (Register(handlers=(handler("arm64", flags="OP"),)), False),
        (Register(handlers=(handler("arm64"), handler("arm64", flags="OC"))), False),  # which comes first is not shown
        (Register(handlers=(handler("arm64"), handler("arm64", state="disabled", flags="OC"))), True),
        (Register(handlers=(handler("arm64", state="disabled"),)), False),
        (Register(enabled=False, handlers=(handler("arm64"),)), False),
        (Register(handlers=(handler("arm"), handler("riscv64"))), False),
        (Register(), False),
        (Register(mounted=False), False),
    ],
)
def test_only_an_enabled_handler_with_the_flag_f_is_enough(register: Register, can: bool) -> None:
    assert can_execute(program_of("arm64"), register, never) is can


def test_where_no_handler_has_a_say_the_kernel_is_asked() -> None:
    asked: list[bytes] = []

    def always(program: bytes) -> bool:
        asked.append(program)
        return True

    program = program_of("386")
    assert can_execute(program, Register(), always)
    assert can_execute(program, Register(mounted=False), always)
    assert can_execute(program, Register(enabled=False, handlers=(handler("386", flags=""),)), always)
    assert not can_execute(program, Register(handlers=(handler("386", flags=""),)), always)
    assert asked == [program] * 3


@pytest.mark.parametrize(
    ("platform", "register", "reason", "mend"),
    [
        ("linux/arm64", Register(), "no emulator is registered in binfmt_misc", "sudo apt-get install qemu-user-static binfmt-support"),
        ("linux/arm64", Register(), "no emulator", "or build on a machine of linux/arm64"),
        ("linux/arm/v7", Register(mounted=False), "binfmt_misc is not mounted", "sudo mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc"),
        ("linux/arm64", Register(handlers=(handler("arm64", flags="OP"),)), "qemu-arm64 without the flag F, so that /usr/libexec/", "registered with F"),
        ("linux/arm64", Register(handlers=(handler("arm64"), handler("arm64", flags=""))), "without the flag F", "registered with F"),
        ("linux/arm64", Register(handlers=(handler("arm64", state="disabled"),)), "qemu-arm64 of binfmt_misc is disabled", "binfmt_misc/qemu-arm64"),
        ("linux/arm64", Register(enabled=False, handlers=(handler("arm64"),)), "is disabled", "echo 1 | sudo tee /proc/sys/fs/binfmt_misc/status"),
        ("linux/386", Register(), "executes no 32-bit programs", "CONFIG_IA32_EMULATION"),
        ("linux/sparc64", Register(handlers=(handler("arm64"),)), "no emulator is registered", "or build on a machine of linux/sparc64"),
        ("windows/amd64", Register(), "another operating system", "build windows/amd64 without commands"),
    ],
)
def test_what_is_missing_is_named_with_what_mends_it(platform: str, register: Register, reason: str, mend: str) -> None:
    wanted = parse_platform(platform)
    told = explain(wanted, smallest_program(wanted), register, host=AMD64, where='image "app", install')
    assert told.what.startswith(f"commands for {wanted} cannot run on this machine (linux/amd64): ")
    assert reason in told.what
    assert mend in told.mend
    assert told.where == 'image "app", install'
    assert told.exit_code == 3


def test_the_register_is_read_from_the_kernel_s_files(tmp_path: Path) -> None:
    assert read_register(str(tmp_path)) == Register(mounted=False)
    assert read_register(str(tmp_path / "absent")) == Register(mounted=False)
    (tmp_path / "status").write_text("enabled\n")
    (tmp_path / "register").write_text("")
    (tmp_path / "qemu-s390x").write_text(text_of("s390x"))
    (tmp_path / "qemu-arm64").write_text(text_of("arm64", state="disabled"))
    (tmp_path / "windows").write_text("enabled\ninterpreter /usr/bin/wine\nflags: \nextension .exe\n")
    found = read_register(str(tmp_path))
    assert [(one.name, one.enabled) for one in found.handlers] == [("qemu-arm64", False), ("qemu-s390x", True)]
    assert deciding(program_of("arm64"), found) == ()
    (tmp_path / "status").write_text("disabled\n")
    assert deciding(program_of("s390x"), read_register(str(tmp_path))) == ()


def test_the_machine_s_own_programs_are_executed_and_ask_for_no_register(tmp_path: Path) -> None:
    host = host_platform()
    refuse_foreign(host, where="x", binfmt_misc=str(tmp_path))
    if program := smallest_program(host):
        assert executes(program)
        assert not executes(program[:20])


def test_programs_nobody_executes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MachineLacks, match="commands for linux/sparc64 cannot run on this machine"):
        refuse_foreign(Platform("linux", "sparc64"), where="x", binfmt_misc=str(tmp_path))


@pytest.mark.needs_root
def test_a_registered_emulator_is_found_and_runs_programs_in_another_root(emulation: Emulation) -> None:
    refuse_foreign(emulation.platform, where="x")
    assert executes(smallest_program(emulation.platform))
    assert emulation.machine_seen_by_a_program() == emulation.machine
