"""The system call filter (seccomp) of every command: what Docker's default profile denies, and what is newer than we know.

A deny list on top of dropped capabilities: each entry is a call that either reaches a large kernel surface or changes
the sandbox itself. Numbers: Linux `arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from . import kernel

LAST_KNOWN = 462  # newer calls answer "not implemented"; programs fall back, as they do on an older kernel

# name: (x86_64, aarch64); -1 where the architecture lacks it.
DENIED = {
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "unshare": (272, 97), "setns": (308, 268),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "statmount": (457, 457),
    "listmount": (458, 458), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171), "syslog": (103, 116),
    "sethostname": (170, 161), "setdomainname": (171, 162), "mbind": (237, 235), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "set_mempolicy": (238, 237), "fanotify_init": (300, 262), "vhangup": (153, 58),
    "landlock_create_ruleset": (444, 444), "memfd_secret": (447, 447), "lookup_dcookie": (212, 18),
    "iopl": (172, -1), "ioperm": (173, -1), "modify_ldt": (154, -1), "uselib": (134, -1), "ustat": (136, -1),
    "sysfs": (139, -1), "_sysctl": (156, -1), "nfsservctl": (180, 42), "vmsplice": (278, 75),
    # What outlives the process that made it, and no limit of a process counts.
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "io_setup": (206, 0),  # a number for the whole machine
}  # fmt: skip

CLONE, CLONE3, SOCKET, IOCTL = (56, 220), (435, 435), (41, 198), (16, 29)
NEW_NAMESPACES = kernel.ALL_NAMESPACES | 0x80  # and a new time namespace
SOCKET_FAMILIES = (1, 2, 10, 16)  # unix, IPv4, IPv6, netlink
BAD_IOCTLS = (0x5412, 0x541C)  # TIOCSTI and TIOCLINUX type into a terminal

_LOAD, _JEQ, _JGT, _JSET, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000


def _one(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def program(machine: str) -> bytes:
    """The filter as BPF instructions for `machine`. Raises `KeyError` for an architecture whose call numbers are
    not listed."""
    index, arch = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}[machine]
    deny, unknown = _one(_RETURN, _ERRNO | errno.EPERM), _one(_RETURN, _ERRNO | errno.ENOSYS)
    allow = _one(_RETURN, _ALLOW)
    code = [_one(_LOAD, 4), _one(_JEQ, arch, 1), _one(_RETURN, _KILL), _one(_LOAD, 0)]
    code += [_one(_JGT, LAST_KNOWN, 0, 1), unknown]  # also x86's x32 calls, whose numbers start at 2**30
    code += [_one(_JEQ, CLONE3[index], 0, 1), unknown]  # its flags are behind a pointer; libc falls back to clone
    for numbers in DENIED.values():
        if numbers[index] >= 0:
            code += [_one(_JEQ, numbers[index], 0, 1), deny]
    # Argument i's low half is at 16 + 8 i.
    code += [_one(_JEQ, CLONE[index], 0, 4), _one(_LOAD, 16), _one(_JSET, NEW_NAMESPACES, 0, 1), deny, allow]
    ioctls = [_one(_JEQ, number, len(BAD_IOCTLS) - at) for at, number in enumerate(BAD_IOCTLS)]
    code += [_one(_JEQ, IOCTL[index], 0, len(ioctls) + 3), _one(_LOAD, 24), *ioctls, allow, deny]
    families = [_one(_JEQ, number, len(SOCKET_FAMILIES) - at) for at, number in enumerate(SOCKET_FAMILIES)]
    code += [_one(_JEQ, SOCKET[index], 0, len(families) + 3), _one(_LOAD, 16), *families]
    code += [_one(_RETURN, _ERRNO | errno.EAFNOSUPPORT), allow, allow]
    return b"".join(code)


def install() -> None:
    """Puts the filter on the calling process and all it will start. There is no way back."""
    raw = program(os.uname().machine)
    buffer = ctypes.create_string_buffer(raw, len(raw))
    header = struct.pack("HxxxxxxQ", len(raw) // 8, ctypes.addressof(buffer))
    address = ctypes.create_string_buffer(header, len(header))
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(22, 2, ctypes.addressof(address))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
