"""Commands of another architecture: whether this kernel executes its programs, by itself or through an emulator that is registered in binfmt_misc.

Parsing, matching and explaining take values and return values; `read_register` reads the kernel's files, `executes` starts a program.
Source: Linux, admin-guide/binfmt-misc.rst and fs/binfmt_misc.c; ELF-64 Object File Format 1.5; elf(5). Starting the smallest program of an architecture
is what BuildKit does too (util/archutil).
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from layerwright.errors import LayerwrightError, MachineLacks
from layerwright.host.run import run
from layerwright.oci.platform import Platform, host_platform
from layerwright.runtime.flavours import read_text

BINFMT_MISC = "/proc/sys/fs/binfmt_misc"

_LOOKED_AT_BYTES = 256  # BINPRM_BUF_SIZE: so much of a program the kernel holds against magic and mask, zeros after its end
_BASE = 0x40_0000
_PAGE = 0x1_0000  # the largest that any of these kernels uses
_PACKAGES = "sudo apt-get install qemu-user-static binfmt-support (from Debian 13 on: qemu-user-binfmt)"
_BUSY_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One entry of binfmt_misc: the kernel starts `interpreter` for files that have `magic` at `offset`, where `mask` has bits."""

    name: str
    enabled: bool
    interpreter: str
    flags: str
    offset: int
    magic: bytes
    mask: bytes

    @property
    def is_fixed(self) -> bool:
        """Whether the kernel holds the interpreter open since it was registered; else it looks for its path, which a container does not have."""
        return "F" in self.flags


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """binfmt_misc as this process sees it. `enabled` is of all handlers together."""

    mounted: bool = True
    enabled: bool = True
    handlers: tuple[Handler, ...] = ()


@dataclass(frozen=True, slots=True)
class _Machine:
    """How the programs of an architecture look: ELF's `e_machine` and `e_flags`, and instructions that are exit(0)."""

    number: int
    bits: Literal[32, 64]
    order: Literal["<", ">"]
    flags: int
    exit_0: bytes


_MACHINES: Mapping[str, _Machine] = {
    "386": _Machine(3, 32, "<", 0, bytes.fromhex("31db b801000000 cd80")),  # xor ebx,ebx; mov eax,1; int 0x80
    "amd64": _Machine(62, 64, "<", 0, bytes.fromhex("31ff b83c000000 0f05")),  # xor edi,edi; mov eax,60; syscall
    "arm": _Machine(40, 32, "<", 0x0500_0000, bytes.fromhex("0000a0e3 0170a0e3 000000ef")),  # mov r0,#0; mov r7,#1; svc #0
    "arm64": _Machine(183, 64, "<", 0, bytes.fromhex("000080d2 a80b80d2 010000d4")),  # mov x0,#0; mov x8,#93; svc #0
    "loong64": _Machine(258, 64, "<", 0x43, bytes.fromhex("04001500 0b748102 00002b00")),  # move a0,zero; addi.w a7,zero,93; syscall 0
    "mips64le": _Machine(8, 64, "<", 0x8000_0000, bytes.fromhex("25200000 c2130224 0c000000")),  # move a0,zero; li v0,5058; syscall
    "ppc64le": _Machine(21, 64, "<", 2, bytes.fromhex("00006038 01000038 02000044")),  # li r3,0; li r0,1; sc
    "riscv64": _Machine(243, 64, "<", 0, bytes.fromhex("13050000 9308d005 73000000")),  # li a0,0; li a7,93; ecall
    "s390x": _Machine(22, 64, ">", 0, bytes.fromhex("a7290000 0a01")),  # lghi %r2,0; svc 1
}


def refuse_foreign(platform: Platform, *, where: str, binfmt_misc: str = BINFMT_MISC) -> None:
    """Return if containers on this kernel can execute programs of `platform`; raise MachineLacks, with what mends it, if not.

    `where` is what runs them: the image and the stage.
    """
    host = host_platform()
    if (platform.os, platform.architecture) == (host.os, host.architecture):
        return
    program = smallest_program(platform)
    register = read_register(binfmt_misc)
    if not can_execute(program, register, executes):
        raise explain(platform, program, register, host=host, where=where)


def can_execute(program: bytes, register: Register, executes: Callable[[bytes], bool]) -> bool:
    """Whether a container can execute `program`. A handler has the first word; without one the kernel is asked.

    It knows best: whether it was built to execute 32-bit programs (386, arm), and which handlers there are where binfmt_misc is not to be seen, as in most
    containers. There an interpreter is hardly ever at its path, so that what works has the flag F.
    """
    chosen = deciding(program, register)
    return all(one.is_fixed for one in chosen) if chosen else bool(program) and executes(program)


def deciding(program: bytes, register: Register) -> tuple[Handler, ...]:
    """The handlers one of which the kernel takes for `program`: the last registered one, and which that is cannot be seen."""
    return tuple(one for one in register.handlers if register.enabled and one.enabled and matches(one, program))


def matches(handler: Handler, program: bytes) -> bool:
    part = program.ljust(_LOOKED_AT_BYTES, b"\0")[handler.offset : handler.offset + len(handler.magic)]
    return (
        bool(program)
        and len(part) == len(handler.magic)
        and all((ours ^ magic) & mask == 0 for ours, magic, mask in zip(part, handler.magic, handler.mask, strict=True))
    )


def explain(platform: Platform, program: bytes, register: Register, *, host: Platform, where: str) -> MachineLacks:
    """Why programs of `platform` cannot be executed, and what mends it."""
    reason, mend = _reason_and_mend(platform, program, register, host)
    return MachineLacks(
        f"commands for {platform} cannot run on this machine ({host}): {reason}", where=where, mend=f"{mend}; or build on a machine of {platform}"
    )


def _reason_and_mend(platform: Platform, program: bytes, register: Register, host: Platform) -> tuple[str, str]:
    if platform.os != host.os:
        return "it is another operating system", f"build {platform} without commands"
    if unfixed := [one for one in deciding(program, register) if not one.is_fixed]:
        interpreter = unfixed[0].interpreter
        return (
            f"binfmt_misc has {unfixed[0].name} without the flag F, so that {interpreter} would have to be in the image",
            f"replace it by one that is linked statically and registered with F: {_PACKAGES}",
        )
    if matching := [one for one in register.handlers if matches(one, program)]:
        switch = matching[0].name if register.enabled else "status"
        return f"{matching[0].name} of binfmt_misc is disabled", f"echo 1 | sudo tee {BINFMT_MISC}/{switch}"
    if (host.architecture, platform.architecture) == ("amd64", "386"):
        return "its kernel executes no 32-bit programs", "boot a kernel with CONFIG_IA32_EMULATION, without ia32_emulation=0"
    if not register.mounted:
        mount = f"sudo mount -t binfmt_misc binfmt_misc {BINFMT_MISC}"
        return "binfmt_misc is not mounted, and no emulator is registered", f"{mount}, then {_PACKAGES}; for a container, on its host"
    return "no emulator is registered in binfmt_misc", _PACKAGES


def read_register(directory: str = BINFMT_MISC) -> Register:
    status = read_text(f"{directory}/status").strip()
    if not status:
        return Register(mounted=False)
    names = sorted(name for name in os.listdir(directory) if name not in ("register", "status"))
    found = [parse_handler(name, read_text(f"{directory}/{name}")) for name in names]
    return Register(enabled=status == "enabled", handlers=tuple(one for one in found if one is not None))


def parse_handler(name: str, text: str) -> Handler | None:
    """The entry whose file holds `text`; None for one that goes by the file's extension, and for one that cannot be read."""
    first, _, rest = text.partition("\n")
    said = {key: value for key, _, value in (line.partition(" ") for line in rest.splitlines())}
    try:
        magic = bytes.fromhex(said["magic"])
        mask = bytes.fromhex(said["mask"]) if "mask" in said else b"\xff" * len(magic)
        offset = int(said["offset"])
    except (KeyError, ValueError):
        return None
    if len(mask) != len(magic) or not magic:
        return None
    return Handler(
        name=name, enabled=first == "enabled", interpreter=said.get("interpreter", ""), flags=said.get("flags:", ""), offset=offset, magic=magic, mask=mask
    )


def smallest_program(platform: Platform) -> bytes:
    """A static ELF program of the platform that only exits, with 0; b"" where we know none."""
    machine = _MACHINES.get(platform.architecture)
    if platform.os != "linux" or machine is None:
        return b""
    wide = machine.bits == 64
    header_size, entry_size, word = (64, 56, "Q") if wide else (52, 32, "I")
    start = header_size + entry_size
    size = start + len(machine.exit_0)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if machine.order == "<" else 2, 1]) + bytes(9)
    header = struct.pack(
        f"{machine.order}HHI{word}{word}{word}IHHHHHH", 2, machine.number, 1, _BASE + start, header_size, 0, machine.flags, header_size, entry_size, 1, 0, 0, 0
    )
    read_and_execute = 5
    if wide:
        segment = struct.pack(f"{machine.order}IIQQQQQQ", 1, read_and_execute, 0, _BASE, _BASE, size, size, _PAGE)
    else:
        segment = struct.pack(f"{machine.order}IIIIIIII", 1, 0, _BASE, _BASE, size, size, read_and_execute, _PAGE)
    return ident + header + segment + machine.exit_0


def executes(program: bytes) -> bool:
    """Whether this kernel executes `program`, and it ends with 0. Nothing is written to a disk."""
    writing = os.memfd_create("program")
    try:
        os.write(writing, program)
        reading = os.open(f"/proc/self/fd/{writing}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writing)  # a file that somebody may write to is not executed
    try:
        return _runs(f"/proc/{os.getpid()}/fd/{reading}")
    finally:
        os.close(reading)


def _runs(path: str) -> bool:
    for _ in range(_BUSY_TRIES):
        try:
            run([path], env={})
        except LayerwrightError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.ETXTBSY:
                return False
            time.sleep(0.01)  # a process that another thread is starting still holds the end for writing
        else:
            return True
    return False
