"""What Linux adds to the cage: no powers, no new process by system call, no path and no port but what psql needs.

Standard library only, since `cage.py` runs it isolated. Numbers are the kernel's own (`linux/seccomp.h`,
`linux/landlock.h`, `linux/prctl.h`). A kernel without one of these features says so and the layer is left out;
`cage.prove` is what decides.
"""

import ctypes
import errno
import os
import platform
import struct
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _SECCOMP_MODE_FILTER = 38, 22, 24, 2
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

# fork, vfork, clone, clone3 (absent, so that libc falls back to clone), execveat, ptrace, process_vm_readv and _writev,
# io_uring_setup, unshare, setns. psql is one thread and needs none of them.
_CLONE3 = 435
_REFUSED = {
    "x86_64": (0xC000003E, (57, 58, 56, 322, 101, 310, 311, 425, 272, 308)),
    "aarch64": (0xC00000B7, (220, 281, 117, 270, 271, 425, 97, 268)),
}

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many bits the rights of each version have; later ones have 16
_CONNECT_TCP = 2
_READABLE = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store", "/home/linuxbrew/.linuxbrew"),
    *("/usr/share/zoneinfo", "/usr/share/locale", "/usr/share/zoneinfo-icu"),
    *("/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime", "/etc/nsswitch.conf", "/etc/hosts", "/etc/host.conf"),
    *("/etc/gai.conf", "/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf", "/etc/crypto-policies", "/dev/urandom"),
)
_TERMINAL = ("/dev/tty", "/dev/null", "/dev/pts")


def confine(psql: Path, port: int) -> None:
    """Puts all layers on; raises OSError where one that this kernel has refuses."""
    for capability in range(64):
        _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused without powers: then there is nothing to drop
    _must(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _restrict_paths(psql, port)
    _filter_calls()


def _must(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _filter_calls() -> None:
    known = _REFUSED.get(platform.machine())
    if known is None or struct.calcsize("P") != 8:
        return
    architecture, numbers = known

    def step(code: int, yes: int, no: int, value: int) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    program = [step(load, 0, 0, 4), step(equal, 1, 0, architecture), step(give, 0, 0, _KILL), step(load, 0, 0, 0)]
    # The x32 numbers of x86_64 are the same calls by another name.
    program += [step(at_least, 0, 1, 0x40000000), step(give, 0, 0, _ERRNO | errno.EPERM)]
    program += [step(equal, 0, 1, _CLONE3), step(give, 0, 0, _ERRNO | errno.ENOSYS)]
    for number in numbers:
        program += [step(equal, 0, 1, number), step(give, 0, 0, _ERRNO | errno.EPERM)]
    program.append(step(give, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    if _LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(head), 0, 0) < 0:
        number = ctypes.get_errno()
        if number != errno.EINVAL:  # a kernel built without filters
            raise OSError(number, f"seccomp: {os.strerror(number)}")


def _restrict_paths(psql: Path, port: int) -> None:
    version = _LIBC.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return
    every = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    network = _CONNECT_TCP | 1 if version >= 4 else 0
    attributes = struct.pack("QQQ", every, network, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _must(_LIBC.syscall(_CREATE_RULESET, attributes, size, 0), "landlock")
    for folder in (*map(Path, _READABLE), *_beside(psql)):
        _allow_path(ruleset, folder, _READ_FILE | _READ_DIR)
    for program in (psql, *map(Path, _interpreter(psql))):
        _allow_path(ruleset, program.resolve(), _READ_FILE | _EXECUTE)
    for device in _TERMINAL:
        _allow_path(ruleset, Path(device), _READ_FILE | _WRITE_FILE | (1 << 15 if version >= 5 else 0))
    if network:
        _must(_LIBC.syscall(_ADD_RULE, ruleset, 2, struct.pack("QQ", _CONNECT_TCP, port), 0), "landlock")
    _must(_LIBC.syscall(_RESTRICT_SELF, ruleset, 0), "landlock")
    os.close(ruleset)


def _allow_path(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            rights &= ~_READ_DIR
        _must(_LIBC.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, descriptor), 0), f"landlock: {path}")
    finally:
        os.close(descriptor)


def _beside(psql: Path) -> list[Path]:
    """Gives the folders of an install that came as one piece, such as a wheel with the libraries it needs."""
    prefix = psql.parent.parent
    return [prefix / "lib", prefix / "share", *prefix.parent.parent.glob("*.libs")]


def _interpreter(psql: Path) -> list[str]:
    """Gives the loader that an ELF program names."""
    with psql.open("rb") as file:
        head = file.read(64)
        if head[:5] != b"\x7fELF\x02":
            return []
        (table,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        for index in range(count):
            file.seek(table + index * size)
            entry = file.read(56)
            (kind,) = struct.unpack_from("<I", entry, 0)
            if kind == 3:
                offset, length = struct.unpack_from("<Q16xQ", entry, 8)[0], struct.unpack_from("<Q", entry, 32)[0]
                file.seek(offset)
                return [file.read(length).rstrip(b"\0").decode("ascii", "replace")]
    return []
