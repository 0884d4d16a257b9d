"""Rooms without doors, on Linux: own users, network, processes and files, without being root and without Docker.

The server enters a file system in which only Python, its packages and the model are left, read-only. Each job
then gets its own processes, network and empty home. Where the system refuses, the OSError says so.
The limit: the kernel is shared.
"""

import contextlib
import ctypes
import os
import signal
from collections.abc import Sequence
from pathlib import Path

HOME = "/home/learner"
NOBODY = 65534  # a user and a group that own nothing

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, NOEXEC, BIND, REC, PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
DETACH = 2
MOUNT_SETATTR, RECURSIVE, HERE = 442, 0x8000, -100
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}
PDEATHSIG, DUMPABLE, NO_NEW_PRIVS, CAPBSET_DROP, SUBREAPER = 1, 4, 38, 24, 36
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def enter(root: str, visible: Sequence[str], hidden: Sequence[str]) -> None:
    """Leave behind every file but the visible ones; call it before any thread is started.

    Args:
        root: An empty folder.
        visible: Paths that stay, read-only, under their own names.
        hidden: Paths that must not be seen even if they lie inside a visible one.
    Raises: OSError if the system does not allow it; the process is then in no state to go on.
    """
    uid, gid = os.getuid(), os.getgid()
    _call("unshare", NEWUSER | NEWNS | NEWIPC | NEWUTS | NEWNET)
    with contextlib.suppress(OSError):  # already denied
        Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    _mount("none", "/", None, REC | PRIVATE)
    _mount("none", root, "tmpfs", NOSUID, "size=16m,mode=755")
    for path in [*visible, *DEVICES]:
        _show(root, path)
    for path in hidden:
        if not any(each.startswith(f"{path}/") for each in visible):  # of such a folder only that part is there
            _hide(root + path)
    for folder in ("/proc", "/dev/shm", HOME):
        os.makedirs(root + folder, exist_ok=True)
    _mount("/proc", f"{root}/proc", None, BIND | REC)
    _mount("none", root + HOME, "tmpfs", NOSUID | NODEV, "size=16m,mode=700")
    os.environ.update({"HOME": HOME, "TMPDIR": HOME})
    os.chdir(root)
    _call("syscall", PIVOT_ROOT[os.uname().machine], b".", b".")
    _call("umount2", b".", DETACH)
    os.chdir("/")
    _read_only("/", recursive=False)


def begin_job() -> None:
    """In a fork of the server: what is forked from here on lives among its own processes, without a network."""
    _call("unshare", NEWPID | NEWNS | NEWIPC | NEWUTS | NEWNET)


def furnish(megabytes: int) -> None:
    """In the first process of a job: its own /proc, an empty home of limited size, and nobody may look into it."""
    _mount("none", "/", None, REC | PRIVATE)
    try:
        _mount("proc", "/proc", "proc", RDONLY | NOSUID | NODEV | NOEXEC)
    except OSError:
        _mount("none", "/proc", "tmpfs", RDONLY | NOSUID)
    for folder in (HOME, "/dev/shm"):
        _mount("none", folder, "tmpfs", NOSUID | NODEV, f"size={megabytes}m,mode=700")
    prctl(DUMPABLE, 0)


def drop_rights() -> None:
    """Give up every capability for good."""
    for capability in range(64):
        with contextlib.suppress(OSError):  # beyond the last one that this kernel knows
            prctl(CAPBSET_DROP, capability)
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    _call("capset", header, nothing)
    prctl(NO_NEW_PRIVS, 1)


def become_nobody() -> None:
    """Give up being root for good.

    Raises: OSError if this process may not.
    """
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    prctl(PDEATHSIG, signal.SIGKILL)  # the system forgets it when the user changes


def prctl(option: int, value: int) -> None:
    _call("prctl", option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))


def _show(root: str, path: str) -> None:
    target = root + path
    if os.path.lexists(target) or not os.path.lexists(path):
        return  # inside one that is there already, or not on this system
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.mkdir(target)
    else:
        Path(target).touch()
    _mount(path, target, None, BIND | REC)
    _read_only(target, recursive=True)


def _hide(path: str) -> None:
    if os.path.isdir(path):
        _mount("none", path, "tmpfs", RDONLY | NOSUID)
    elif os.path.lexists(path):
        _mount("/dev/null", path, None, BIND)


def _read_only(path: str, *, recursive: bool) -> None:
    attributes = (ctypes.c_uint64 * 4)(RDONLY | NOSUID, 0, 0, 0)
    flags = RECURSIVE if recursive else 0
    _call("syscall", MOUNT_SETATTR, HERE, path.encode(), flags, attributes, ctypes.sizeof(attributes))


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    names = [None if each is None else each.encode() for each in (source, target, kind)]
    _call("mount", *names, ctypes.c_ulong(flags), options.encode() or None)


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
