"""Make the bundle that the benchmark runs: what an engine asks for, not what is easiest.

Five namespaces, sixteen mounts, limits and device rules, a seccomp profile that allows
some three hundred calls, fourteen capabilities, masked and read-only paths.  The root
file system is one static busybox, so that the program costs next to nothing.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

APPLETS = ("sh", "sleep", "true", "cat", "echo")

CAPABILITIES = (
    "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP "
    "SETGID SETPCAP SETUID SYS_CHROOT"
)
MASKED = ["acpi", "asound", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list"]
READONLY = ["bus", "fs", "irq", "sys", "sysrq-trigger"]

# (type, major, minor), as one allow rule each after "deny everything".
DEVICES = (("c", 1, 3), ("c", 1, 5), ("c", 1, 7), ("c", 1, 8), ("c", 1, 9), ("c", 5, 0))

# By subject; a name the machine does not have is skipped by every runtime.
ALLOWED_CALLS = {
    "files": """
        access close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
        fallocate fcntl fcntl64 fdatasync flock fsync ftruncate ftruncate64 ioctl lseek _llseek
        open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read
        readahead readv sendfile sendfile64 splice sync sync_file_range syncfs tee truncate
        truncate64 umask vmsplice write writev""",
    "names and attributes": """
        chdir chmod chown chown32 fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
        fgetxattr flistxattr fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64
        futimesat getcwd getdents getdents64 getxattr inotify_add_watch inotify_init
        inotify_init1 inotify_rm_watch lchown lchown32 lgetxattr link linkat listxattr
        llistxattr lremovexattr lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat newfstatat
        readlink readlinkat removexattr rename renameat renameat2 rmdir setxattr stat stat64
        statfs statfs64 statx symlink symlinkat unlink unlinkat utime utimensat
        utimensat_time64 utimes name_to_handle_at""",
    "memory": """
        brk madvise membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2
        mprotect mremap msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
        process_madvise process_mrelease remap_file_pages cachestat map_shadow_stack""",
    "processes": """
        arch_prctl capget capset execve execveat exit exit_group fork futex futex_requeue
        futex_time64 futex_wait futex_waitv futex_wake get_robust_list get_thread_area getcpu
        getpgid getpgrp getpid getppid getpriority getrlimit getrusage getsid gettid ioprio_get
        ioprio_set landlock_add_rule landlock_create_ruleset landlock_restrict_self pidfd_open
        pidfd_send_signal prctl prlimit64 rseq sched_get_priority_max sched_get_priority_min
        sched_getaffinity sched_getattr sched_getparam sched_getscheduler
        sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
        sched_setparam sched_setscheduler sched_yield seccomp set_robust_list set_thread_area
        set_tid_address setpgid setpriority setrlimit setsid ugetrlimit uname vfork wait4
        waitid waitpid sysinfo syslog times chroot ptrace process_vm_readv process_vm_writev
        kcmp""",
    "users": """
        getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid
        getresgid32 getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid
        setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid
        setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32""",
    "signals": """
        alarm kill pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask
        rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
        rt_tgsigqueueinfo sigaltstack signalfd signalfd4 sigprocmask sigreturn tgkill tkill""",
    "time": """
        adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
        clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep
        setitimer time timer_create timer_delete timer_getoverrun timer_gettime
        timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
        timerfd_gettime64 timerfd_settime timerfd_settime64""",
    "waiting": """
        epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
        epoll_wait_old eventfd eventfd2 io_cancel io_destroy io_getevents io_pgetevents
        io_pgetevents_time64 io_setup io_submit poll ppoll ppoll_time64 pselect6
        pselect6_time64 select _newselect""",
    "sockets": """
        accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom
        recvmmsg recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown
        socketcall socketpair""",
    "ipc": """
        ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
        mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop
        semtimedop semtimedop_time64 shmat shmctl shmdt shmget""",
    "other": "getrandom modify_ldt",
}

AF_VSOCK = 40
CLONE_NAMESPACE_FLAGS = 0x7E020000
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
ENOSYS = 38

ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}


def seccomp(machine: str) -> dict[str, Any]:
    """Deny by default, allow the everyday calls, and a few only with certain arguments."""

    def rule(name: str, op: str, value: int, value_two: int = 0) -> dict[str, Any]:
        arg = {"index": 0, "value": value, "valueTwo": value_two, "op": f"SCMP_CMP_{op}"}
        return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [arg]}

    rules: list[dict[str, Any]] = [
        {"names": names.split(), "action": "SCMP_ACT_ALLOW"} for names in ALLOWED_CALLS.values()
    ]
    rules += [rule("personality", "EQ", value) for value in PERSONALITIES]
    rules.append(rule("socket", "NE", AF_VSOCK))
    rules.append(rule("clone", "MASKED_EQ", CLONE_NAMESPACE_FLAGS))
    # Its flags sit behind a pointer; ENOSYS makes C libraries fall back to clone.
    rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS})
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": rules}
    if machine in ARCHITECTURES:
        profile["architectures"] = ARCHITECTURES[machine]
    return profile


def mounts(folder: str) -> list[dict[str, Any]]:
    def mount(destination: str, kind: str, options: str, source: str = "") -> dict[str, Any]:
        return {
            "destination": destination,
            "type": kind,
            "source": source or kind,
            "options": options.split(","),
        }

    def bind(destination: str, source: str, options: str) -> dict[str, Any]:
        return mount(destination, "bind", options, os.path.join(folder, source))

    return [
        mount("/proc", "proc", "nosuid,noexec,nodev"),
        mount("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
        mount("/sys", "sysfs", "nosuid,noexec,nodev,ro"),
        mount("/sys/fs/cgroup", "cgroup", "ro,nosuid,noexec,nodev"),
        mount("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
        mount("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=65536k"),
        mount("/tmp", "tmpfs", "nosuid,nodev,mode=1777"),
        mount("/run", "tmpfs", "nosuid,nodev,mode=755"),
        mount("/var/tmp", "tmpfs", "nosuid,nodev,noexec,mode=1777,size=1m"),
        bind("/etc/hosts", "etc/hosts", "rbind,rprivate"),
        bind("/etc/hostname", "etc/hostname", "rbind,rprivate"),
        bind("/etc/resolv.conf", "etc/resolv.conf", "rbind,rprivate"),
        bind("/data", "data", "rbind,rprivate"),
        bind("/input", "input", "rbind,rprivate,ro"),
        bind("/opt/tools", "tools", "bind,ro,nosuid,nodev"),
    ]


def config(folder: str, args: list[str], cgroup: str, machine: str) -> dict[str, Any]:
    """Return config.json for a program `args` on the root file system below `folder`."""
    capabilities = [f"CAP_{name}" for name in CAPABILITIES.split()]
    allow = [
        {"allow": True, "type": kind, "major": major, "minor": minor, "access": "rwm"}
        for kind, major, minor in DEVICES
    ]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0, "additionalGids": [1, 2, 10]},
            "args": args,
            "env": ["PATH=/usr/bin:/bin", "HOSTNAME=bench", "HOME=/root", "LANG=C.UTF-8"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": os.path.join(folder, "rootfs")},
        "hostname": "bench",
        "mounts": mounts(folder),
        "linux": {
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"},
            "cgroupsPath": cgroup,
            "resources": {
                "devices": [{"allow": False, "access": "rwm"}, *allow],
                "memory": {"limit": 256 << 20, "reservation": 64 << 20},
                "cpu": {"shares": 512, "quota": 100000, "period": 100000, "cpus": "0"},
                "pids": {"limit": 128},
            },
            "namespaces": [{"type": kind} for kind in ("mount", "network", "uts", "pid", "ipc")],
            "seccomp": seccomp(machine),
            "maskedPaths": [f"/proc/{name}" for name in MASKED] + ["/sys/firmware"],
            "readonlyPaths": [f"/proc/{name}" for name in READONLY],
        },
    }


def make_files(folder: str, busybox: str) -> None:
    """Lay out the root file system and the sources of the bind mounts below `folder`."""
    rootfs = os.path.join(folder, "rootfs")
    for name in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var/tmp"):
        os.makedirs(os.path.join(rootfs, name))
    for name in ("etc", "data", "input", "tools"):
        os.makedirs(os.path.join(folder, name))
    shutil.copy(busybox, os.path.join(rootfs, "bin/busybox"))
    for applet in APPLETS:
        os.symlink("busybox", os.path.join(rootfs, "bin", applet))
    texts = {
        "rootfs/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
        "rootfs/etc/group": "root:x:0:\n",
        "etc/hosts": "127.0.0.1 localhost\n",
        "etc/hostname": "bench\n",
        "etc/resolv.conf": "",
    }
    for name, text in texts.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)


def make_bundle(folder: str, name: str, args: list[str], cgroup: str) -> str:
    """Write a bundle that uses the files of `folder`, and return its path."""
    path = os.path.join(folder, name)
    os.makedirs(path)
    with open(os.path.join(path, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config(folder, args, cgroup, os.uname().machine), file)
    return path
