"""The program in which a stranger's Python runs: locked in for good before it reads any of it.

`python_runner.py` starts this file as a process of its own. It needs nothing but the standard
library and takes two arguments: the scratch directory, and limits as JSON. It then gives up, one
after the other, and with no way back,

- privileges: capabilities and the right to gain any (`no_new_privs`),
- files: Landlock leaves it the scratch directory, and to read, Python's own library,
- the system: a seccomp filter leaves it the calls of a computation with files. It can start no
  process and no thread, open no socket, and signal, trace or limit no process but itself,
- time, memory and size of files: resource limits.

On the descriptor that the limits name as `report` it writes READY once all doors are shut, and
closes it before the stranger's first statement. Where one of them cannot be shut it writes why, and
ends having run nothing. The kernel's interfaces are those of landlock(7), seccomp(2),
capabilities(7) and prctl(2).
"""

import ctypes
import errno
import json
import linecache
import os
import platform
import resource
import struct
import sys
import traceback

READY = b"isolated"
_NAME = "program.py"

_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 38, 24, 1, 4
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_CAPSET_VERSION = 0x20080522

# Numbers of the system calls that a computation with files needs, on x86-64 and on AArch64, from
# the kernel's tables; None where an architecture has none of that name. Those that change a file by
# its name without opening it (chmod, chown, utimensat, truncate, ...) are not among them: Landlock
# does not look at them, or not in all its versions.
_CALLS = {
    "read": (0, 63), "write": (1, 64), "open": (2, None), "close": (3, 57), "stat": (4, None),
    "fstat": (5, 80), "lstat": (6, None), "poll": (7, None), "lseek": (8, 62), "mmap": (9, 222),
    "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "pread64": (17, 67),
    "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66), "access": (21, None),
    "pipe": (22, None), "select": (23, None), "sched_yield": (24, 124), "mremap": (25, 216),
    "madvise": (28, 233), "dup": (32, 23), "dup2": (33, None), "nanosleep": (35, 101),
    "alarm": (37, None), "setitimer": (38, 103), "getpid": (39, 172), "exit": (60, 93),
    "uname": (63, 160), "flock": (73, 32), "fsync": (74, 82),
    "fdatasync": (75, 83), "ftruncate": (77, 46), "getdents": (78, None),
    "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "rename": (82, None),
    "mkdir": (83, None), "rmdir": (84, None), "unlink": (87, None), "readlink": (89, None),
    "umask": (95, 166), "gettimeofday": (96, 169), "getrusage": (98, 165), "sysinfo": (99, 179),
    "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175),
    "getegid": (108, 177), "getppid": (110, 173), "getgroups": (115, 158),
    "sigaltstack": (131, 132), "gettid": (186, 178), "time": (201, None), "futex": (202, 98),
    "sched_getaffinity": (204, 123), "getdents64": (217, 61), "set_tid_address": (218, 96),
    "restart_syscall": (219, 128), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "exit_group": (231, 94), "openat": (257, 56),
    "mkdirat": (258, 34), "newfstatat": (262, 79), "unlinkat": (263, 35), "renameat": (264, 38),
    "readlinkat": (267, 78), "faccessat": (269, 48), "pselect6": (270, 72), "ppoll": (271, 73),
    "set_robust_list": (273, 99), "dup3": (292, 24), "pipe2": (293, 59),
    "renameat2": (316, 276), "getrandom": (318, 278), "statx": (332, 291), "rseq": (334, 293),
    "faccessat2": (439, 439),
}  # fmt: skip
# Of which one argument must be among some values: this process's id, or commands for descriptors
# and locks that give no descriptor an owner to be sent signals.
_COMMANDS = (*range(8), 36, 37, 38, 1030)
_CHECKED = {
    "kill": (62, 129),
    "tgkill": (234, 131),
    "fcntl": (72, 25),
}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class _CannotIsolate(Exception):
    """The system does not offer what isolation needs."""


_libc = ctypes.CDLL(None, use_errno=True)


def _call(name, *arguments):
    """A function of libc; an error of the system's becomes an exception."""
    result = getattr(_libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def _prctl(option, *arguments):
    arguments = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    _call("prctl", option, *arguments, *[ctypes.c_ulong(0)] * (4 - len(arguments)))


def _drop_privileges():
    """No capability, not even root's, and none to gain; dies with the process that started it."""
    _prctl(_PR_SET_PDEATHSIG, 9)
    for capability in range(64):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == errno.EINVAL:
                break  # There are no more.
            if error.errno != errno.EPERM:
                raise  # EPERM: it has no capability to lose.
    header = struct.pack("Ii", _CAPSET_VERSION, 0)
    _call("capset", header, bytes(24))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # Nobody of the same user may look into it or trace it, and it leaves no core.
    _prctl(_PR_SET_DUMPABLE, 0)


def _restrict_files(scratch, readable):
    """Landlock: everything below `scratch`, and reading below `readable`; nothing else."""
    version = _libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        raise _CannotIsolate("this kernel has no Landlock (Linux 5.13, landlock in its lsm= list)")
    # Rights over files by ABI: 13 at first, REFER, TRUNCATE, IOCTL_DEV.
    rights = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    networks = 3 if version >= 4 else 0
    scopes = 3 if version >= 6 else 0
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    attributes = struct.pack("QQQ", rights, networks, scopes)[:size]
    ruleset = _call("syscall", _LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), 0)

    def allow(path, allowed):
        try:
            at = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        rule = struct.pack("=Qi", allowed & rights, at)
        _call("syscall", _LANDLOCK_ADD, ruleset, 1, rule, 0)
        os.close(at)

    read_file, read_dir, execute = 1 << 2, 1 << 3, 1 << 0
    make_specials = (1 << 6) | (1 << 9) | (1 << 10) | (1 << 11) | (1 << 12)
    allow(scratch, rights & ~(execute | make_specials))
    for path in readable:
        allow(path, read_file | read_dir if os.path.isdir(path) else read_file)
    _call("syscall", _LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _restrict_system_calls():
    """seccomp: what is not in the tables above fails with EPERM."""
    machine = platform.machine()
    if machine not in _MACHINES or sys.maxsize < 2**32:
        raise _CannotIsolate(f"its system calls are not known on {machine}")
    column, architecture = _MACHINES[machine]
    load, equal, greater, give = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, JMP|JEQ|K, JMP|JGE|K, RET|K
    allow, refuse, kill = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
    calls = sorted(n[column] for n in _CALLS.values() if n[column] is not None)
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, kill), (load, 0, 0, 0)]
    # Numbers from here on are of x86-64's other interface, x32.
    program += [(greater, 0, 1, 0x40000000), (give, 0, 0, refuse)]
    for number in calls:
        program += [(equal, 0, 1, number), (give, 0, 0, allow)]
    for name, numbers in _CHECKED.items():
        # The low half of an argument: what is looked for has no other.
        argument, values = (24, _COMMANDS) if name == "fcntl" else (16, (os.getpid(),))
        program += [(equal, 0, 2 * len(values) + 2, numbers[column]), (load, 0, 0, argument)]
        for value in values:
            program += [(equal, 0, 1, value), (give, 0, 0, allow)]
        program.append((give, 0, 0, refuse))
    program.append((give, 0, 0, refuse))
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code, len(code))

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]

    filter_ = Filter(len(program), ctypes.addressof(buffer))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filter_))


def _limit(limits):
    """Resources: seconds of processor time, bytes of memory and of a file, open files."""
    cpu = limits["cpu_seconds"]
    # A signal that says what it was, and a second later one that cannot be ignored.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    for what, most in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _readable():
    """What Python reads of itself while it runs, and the system's libraries and clocks."""
    own = {os.path.dirname(os.__file__), sys.base_prefix + "/lib"}
    system = {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"}
    return sorted(own | system | {"/etc/ld.so.cache", "/usr/share/zoneinfo", "/dev/null"})


def main():
    scratch, limits = sys.argv[1], json.loads(sys.argv[2])
    report = limits["report"]
    with open(limits["source"], "rb", closefd=True) as file:
        source = file.read()
    try:
        os.chdir(scratch)
        _limit(limits)
        _drop_privileges()
        _restrict_files(scratch, _readable())
        _restrict_system_calls()
    except (OSError, _CannotIsolate, AttributeError) as error:
        os.write(report, str(error).encode())
        os._exit(1)
    os.write(report, READY)
    os.close(report)
    _run(source)


def _run(source):
    """Run the program as Python runs a script, with none of this file in its tracebacks."""
    sys.argv = [_NAME]
    linecache.cache[_NAME] = (
        len(source),
        None,
        source.decode(errors="replace").splitlines(True),
        _NAME,
    )
    names = {"__name__": "__main__", "__builtins__": __builtins__}
    try:
        exec(compile(source, _NAME, "exec", dont_inherit=True), names)
    except SystemExit:
        raise
    except BaseException as error:
        own = error.__traceback__.tb_next
        traceback.print_exception(error.with_traceback(own))
        sys.exit(1)


if __name__ == "__main__":
    main()
