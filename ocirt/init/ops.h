/* Generated from ocirt/plan/ops.py by `make ops.h`; never edited. */
#pragma once
#define PLAN_MAGIC 0x3150434fu
#define PLAN_LARGEST 67108864u
#define REPLY_FAIL 1
#define REPLY_ASK 2
#define REPLY_CLONED 3
#define REPLY_FD 4
#define REPLY_WARN 5
#define REPLY_DONE 6
#define REPLY_ASK_MAPS 1
#define REPLY_ASK_HOOKS 2
#define REPLY_ASK_READY 3
#define REPLY_ASK_SECCOMP 4
#define REPLY_ASK_NETWORK 5
#define REPLY_ASK_RDMA 6
#define REPLY_FD_CONSOLE 1
#define REPLY_FD_NETLINK 2
#define HOW_MAKE_DIR 1
#define HOW_MAKE_FILE 2
#define HOW_NO_LINKS 4
#define HOW_COPY_UP 8
#define HOW_VERIFY_PROC 16
#define HOW_VERIFY_SYS 32
#define HOW_IN_PROC 64
#define HOW_ALL_OF_IT 128
#define ROOT_PIVOT 0
#define ROOT_MOVE 1
#define ROOT_CHROOT 2
#define LSM_APPARMOR 0
#define LSM_SELINUX 1
#define OP_LARGEST_CODE 69
#define OP_MOST_ARGS 8
#define OP_JOIN 1
#define OP_OPEN_TREE 2
#define OP_IDMAP 3
#define OP_DEVICES 4
#define OP_WRITE 5
#define OP_AFFINITY 6
#define OP_CLONE 7
#define OP_NETLINK 8
#define OP_RDMA_MOVE 9
#define OP_ATTACH 10
#define OP_ASK 11
#define OP_TRY 12
#define OP_FAIL 13
#define OP_ROOT_IDS 20
#define OP_UNSHARE 21
#define OP_TIME_OFFSETS 22
#define OP_HOSTNAME 23
#define OP_DOMAINNAME 24
#define OP_LOOPBACK 25
#define OP_KEYRING 26
#define OP_PROPAGATION 30
#define OP_ROOTFS 31
#define OP_MOUNT 32
#define OP_BIND 33
#define OP_SET_ATTR 34
#define OP_REMOUNT 35
#define OP_MKDIR 36
#define OP_SYMLINK 37
#define OP_NODE 38
#define OP_HOOK 39
#define OP_PIVOT 40
#define OP_SYSCTL 41
#define OP_MASK 42
#define OP_READONLY 43
#define OP_CONSOLE 44
#define OP_REOPEN_NULL 45
#define OP_HOOK_OUTPUT 46
#define OP_LSM 50
#define OP_NO_NEW_PRIVS 51
#define OP_SCHEDULER 52
#define OP_IO_PRIORITY 53
#define OP_PERSONALITY 54
#define OP_MEMPOLICY 55
#define OP_UMASK 56
#define OP_BOUNDING 57
#define OP_IDENTITY 58
#define OP_CAPABILITIES 59
#define OP_SECCOMP 60
#define OP_STDIO 61
#define OP_CHDIR 62
#define OP_DEATH_SIGNAL 63
#define OP_HOME 64
#define OP_PROGRAM 65
#define OP_GATE 66
#define OP_CLOSE_FDS 67
#define OP_EXEC 68
#define OP_EXIT 69
/* X(CODE, handler, argument types) */
#define OP_TABLE(X) \
  X(1, join, "fii") \
  X(2, open_tree, "isi") \
  X(3, idmap, "issi") \
  X(4, devices, "fs") \
  X(5, write, "ss") \
  X(6, affinity, "s") \
  X(7, clone, "if") \
  X(8, netlink, "i") \
  X(9, rdma_move, "fi") \
  X(10, attach, "f") \
  X(11, ask, "i") \
  X(12, try, "") \
  X(13, fail, "i") \
  X(20, root_ids, "") \
  X(21, unshare, "i") \
  X(22, time_offsets, "s") \
  X(23, hostname, "s") \
  X(24, domainname, "s") \
  X(25, loopback, "") \
  X(26, keyring, "s") \
  X(30, propagation, "i") \
  X(31, rootfs, "si") \
  X(32, mount, "sssisi") \
  X(33, bind, "sfsiiii") \
  X(34, set_attr, "siiii") \
  X(35, remount, "sis") \
  X(36, mkdir, "sii") \
  X(37, symlink, "ssi") \
  X(38, node, "siiiiisi") \
  X(39, hook, "sllsssii") \
  X(40, pivot, "i") \
  X(41, sysctl, "ss") \
  X(42, mask, "s") \
  X(43, readonly, "s") \
  X(44, console, "iiiii") \
  X(45, reopen_null, "") \
  X(46, hook_output, "ff") \
  X(50, lsm, "is") \
  X(51, no_new_privs, "") \
  X(52, scheduler, "s") \
  X(53, io_priority, "i") \
  X(54, personality, "i") \
  X(55, mempolicy, "is") \
  X(56, umask, "i") \
  X(57, bounding, "i") \
  X(58, identity, "iisi") \
  X(59, capabilities, "iiii") \
  X(60, seccomp, "isi") \
  X(61, stdio, "i") \
  X(62, chdir, "si") \
  X(63, death_signal, "i") \
  X(64, home, "i") \
  X(65, program, "sll") \
  X(66, gate, "fii") \
  X(67, close_fds, "ii") \
  X(68, exec, "") \
  X(69, exit, "i")
/* join: fd nstype may_retry */
/* open_tree: slot path recursive */
/* idmap: slot uid_map gid_map recursive */
/* devices: cgroup program */
/* write: path data */
/* affinity: mask */
/* clone: flags cgroup */
/* netlink: protocol */
/* rdma_move: namespace index */
/* attach: tasks */
/* ask: kind */
/* fail: errno */
/* unshare: flags */
/* time_offsets: offsets */
/* hostname: name */
/* domainname: name */
/* keyring: name */
/* propagation: flags */
/* rootfs: path bind */
/* mount: fstype source dest flags data how */
/* bind: source tree dest recursive set clear how */
/* set_attr: dest set clear propagation recursive */
/* remount: dest flags data */
/* mkdir: path mode how */
/* symlink: target path replace */
/* node: path mode major minor uid gid source bind */
/* hook: path argv env before after label index timeout */
/* pivot: how */
/* sysctl: key value */
/* mask: path */
/* readonly: path */
/* console: height width uid gid bind */
/* hook_output: stdout stderr */
/* lsm: kind label */
/* scheduler: attr */
/* io_priority: value */
/* personality: value */
/* mempolicy: mode nodes */
/* umask: value */
/* bounding: keep */
/* identity: uid gid groups set_groups */
/* capabilities: effective permitted inheritable ambient */
/* seccomp: flags program listener */
/* stdio: uid */
/* chdir: path early */
/* death_signal: signal */
/* home: uid */
/* program: name argv env */
/* gate: fifo preserve keep */
/* close_fds: preserve keep */
/* exit: status */
