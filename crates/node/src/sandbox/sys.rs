//! The system calls that have no safe form elsewhere. All of the crate's `unsafe` is here. Decides nothing.
#![allow(unsafe_code)]

use rustix::process::Pid;
use std::ffi::{CStr, CString};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The namespaces of a new process. Those not named are shared with the caller.
pub const USER: i32 = libc::CLONE_NEWUSER;
pub const MOUNT: i32 = libc::CLONE_NEWNS;
pub const PID: i32 = libc::CLONE_NEWPID;
pub const NET: i32 = libc::CLONE_NEWNET;
pub const IPC: i32 = libc::CLONE_NEWIPC;
pub const UTS: i32 = libc::CLONE_NEWUTS;
pub const CGROUP: i32 = libc::CLONE_NEWCGROUP;
/// Makes the new process a sibling of the caller.
pub const SIBLING: i32 = libc::CLONE_PARENT;

/// What `clone` returned.
pub enum Forked {
    Child,
    Parent { pid: Pid, pidfd: OwnedFd },
}

/// Forks into new namespaces. Only for processes with one thread: the spawner and what comes of it.
pub fn clone(flags: i32) -> io::Result<Forked> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: the structure is plain integers, for which zero is valid; the kernel reads `size` bytes of it and writes
    // the descriptor to `pidfd`, which outlives the call. Without CLONE_VM the child gets its own copy of memory, as
    // with fork, and the caller has one thread, so no lock can be left held in the copy.
    let result = unsafe {
        let mut args: libc::clone_args = std::mem::zeroed();
        args.flags = (flags | libc::CLONE_PIDFD) as u64;
        args.pidfd = (&raw mut pidfd) as u64;
        // With CLONE_PARENT the parent's choice of signal is kept, and naming one is refused.
        args.exit_signal = if flags & SIBLING != 0 { 0 } else { libc::SIGCHLD as u64 };
        libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>())
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => {
            // SAFETY: the kernel made this descriptor for us just now; nobody else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = Pid::from_raw(pid as i32).ok_or_else(|| io::Error::other("clone returned no process"))?;
            Ok(Forked::Parent { pid, pidfd })
        }
    }
}

/// Moves the caller into namespaces of the process behind `pidfd`.
pub fn setns(pidfd: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::setns(pidfd.as_raw_fd(), flags) })
}

/// Moves the caller into new namespaces.
pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::unshare(flags) })
}

/// Lets a socket take what is sent to addresses that are not its host's, and have such an address itself.
pub fn set_transparent(socket: BorrowedFd<'_>) -> io::Result<()> {
    switch_on(socket, libc::IP_TRANSPARENT)
}

/// Has a datagram socket tell where each datagram was sent, for [`receive_with_target`].
pub fn tell_targets(socket: BorrowedFd<'_>) -> io::Result<()> {
    switch_on(socket, libc::IP_RECVORIGDSTADDR)
}

/// Has a socket take nothing more: whoever sends to it hears nothing, as if nobody had it.
pub fn deafen(socket: BorrowedFd<'_>) -> io::Result<()> {
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut nothing = libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut nothing };
    // SAFETY: the kernel reads the program, which outlives the call, as does what it points to.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    })
}

fn switch_on(socket: BorrowedFd<'_>, option: i32) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads `size_of` bytes of an integer that outlives the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_IP,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    })
}

/// Receives a datagram: its length, where it comes from, and where it was sent.
pub fn receive_with_target(
    socket: BorrowedFd<'_>,
    datagram: &mut [u8],
) -> io::Result<(usize, SocketAddrV4, SocketAddrV4)> {
    // Room for one header with an address, and for what the compiler may put between.
    let mut control = [0u64; 16];
    // SAFETY: all structures are plain data, for which zero is valid. The kernel writes no more than the lengths given here,
    // into memory that outlives the call; the headers are read where the kernel's own macros say that they are, and an
    // address only from one that says it has it.
    unsafe {
        let mut from: libc::sockaddr_in = std::mem::zeroed();
        let mut piece = libc::iovec { iov_base: datagram.as_mut_ptr().cast(), iov_len: datagram.len() };
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of_val(&from) as libc::socklen_t;
        message.msg_iov = &raw mut piece;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let count = libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0);
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_IP && (*header).cmsg_type == libc::IP_ORIGDSTADDR {
                let target: libc::sockaddr_in = std::ptr::read_unaligned(libc::CMSG_DATA(header).cast());
                return Ok((count as usize, address_of(&from), address_of(&target)));
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Err(io::Error::other("a datagram came without its target"))
}

fn address_of(address: &libc::sockaddr_in) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr)), u16::from_be(address.sin_port))
}

/// Makes the control groups that the caller is in the roots of what it sees of them.
pub fn own_groups() -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::unshare(CGROUP) })
}

/// Makes the mount behind `tree` (with what is mounted below it, if `recursive`) read-only.
pub fn set_read_only(tree: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let attributes = MountAttr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, the structure has the kernel's layout and its own size is passed with it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    check(result as i32)
}

/// `struct mount_attr` of the kernel.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Installs a filter of system calls, for good. Takes CAP_SYS_ADMIN in the caller's user namespace, or no_new_privs.
pub fn filter_calls(program: &[seccompiler::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel copies `len` instructions, which live until the call returns; the two structures of an
    // instruction have the kernel's layout both.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) } as i32)
}

/// Replaces the program; returns only with an error.
pub fn execve(path: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with null and point to C strings that live until the call returns.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends the process at once, without the destructors and buffers it shares with its parent's memory.
pub fn exit(code: i32) -> ! {
    // SAFETY: does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// What to do with a signal.
#[derive(Clone, Copy)]
pub enum Disposition {
    Default,
    Ignore,
}

/// Sets what a signal does. Signals that cannot be set are left alone.
pub fn on_signal(signal: i32, disposition: Disposition) {
    let handler = match disposition {
        Disposition::Default => libc::SIG_DFL,
        Disposition::Ignore => libc::SIG_IGN,
    };
    // SAFETY: neither disposition runs code.
    unsafe { libc::signal(signal, handler) };
}

/// The highest signal number.
pub const SIGNAL_MAX: i32 = 64;

/// Blocks SIGCHLD and returns a descriptor that becomes readable when it comes.
pub fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before it is read; the descriptor is new and ours.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()))?;
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(fd)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Lets every signal through again.
pub fn unblock_signals() -> io::Result<()> {
    // SAFETY: the set is initialised by sigemptyset before it is read.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        check(libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut()))
    }
}

/// Marks every descriptor from `first` on to be closed when a program is executed.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: passes three integers.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } as i32)
}

/// Closes every descriptor from `first` to `last`. The caller names only descriptors nothing here owns.
pub fn close_between(first: u32, last: u32) {
    // SAFETY: passes three integers; ownership is the caller's word, given above.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// Duplicates `fd` to the number `to`, which stays open when a program is executed.
pub fn duplicate_to(fd: BorrowedFd<'_>, to: i32) -> io::Result<()> {
    // SAFETY: passes two integers; whatever `to` was before is one of the standard streams or unused.
    check(unsafe { libc::dup2(fd.as_raw_fd(), to) })
}

/// Takes the socket that the process was started with as its stdin, and puts `/dev/null` in its place. Closes every
/// descriptor that is not a standard stream: what the parent had open is not for this process to keep open.
pub fn take_socket() -> io::Result<OwnedFd> {
    close_between(3, u32::MAX);
    // SAFETY: descriptor 0 was opened by the parent for this process alone; it is borrowed until it is duplicated.
    let stdin = unsafe { BorrowedFd::borrow_raw(0) };
    let socket = rustix::io::fcntl_dupfd_cloexec(stdin, 3)?;
    let null = std::fs::File::open("/dev/null")?;
    duplicate_to(null.as_fd(), 0)?;
    Ok(socket)
}

/// Registers a descriptor with the runtime, to wait for it.
pub fn watch(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open file until it is dropped, which `AsyncFd` does after it deregisters it.
    Ok(unsafe { tokio::io::unix::AsyncFd::register(fd) }?)
}

/// Makes the caller's process group the foreground one of the terminal on stdin.
pub fn take_terminal() -> io::Result<()> {
    on_signal(libc::SIGTTOU, Disposition::Ignore);
    // SAFETY: passes integers only.
    let result = check(unsafe { libc::tcsetpgrp(0, libc::getpgrp()) });
    on_signal(libc::SIGTTOU, Disposition::Default);
    result
}

/// A copy of one environment variable, also before `main` has begun.
pub fn environment_variable(name: &CStr) -> Option<String> {
    // SAFETY: before `main` the process has one thread, so nobody changes the environment while it is read.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
    }
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Runs the spawner instead of the program when the process was started as one, whatever its `main` does: so a test
/// program or any other user of the library can run pods without a hook of its own.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    super::spawner::run_if_asked();
}
