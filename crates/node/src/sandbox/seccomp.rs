//! The filter of system calls that `RuntimeDefault` means, made from `seccomp.txt` and the capabilities of a container. It
//! installs nothing: the container's child does that.

use super::capabilities::Capabilities;
use super::wire::Failure;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use syscalls::Sysno;

const TABLE: &str = include_str!("seccomp.txt");
/// The namespaces that `clone` could make. Who could make a user namespace would have all capabilities in it.
const NAMESPACES: u64 = 0x7e02_0000;
/// Families of sockets that are let through: all below this number, and some of the others. Not among them is what
/// leads out of the pod past its network: `AF_VSOCK` and `AF_ALG`.
const SOCKET_FAMILIES_BELOW: u64 = 12;
const SOCKET_FAMILIES: [u64; 25] =
    [13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45];
/// `PER_LINUX`, `PER_LINUX32`, both without randomised addresses, and the question.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The programs to be installed, in this order: of two that refuse a call, the later one says how.
///
/// # Errors
/// On a machine whose system calls the filter does not know.
pub fn runtime_default(capabilities: Capabilities) -> Result<[BpfProgram; 2], Failure> {
    let refuse = |errno: i32| SeccompAction::Errno(errno as u32);
    let clone3 = Rules::from([(i64::from(Sysno::clone3.id()), Vec::new())]);
    let mut allowed = allowed(capabilities)?;
    allowed.extend(clone3.clone());
    Ok([
        compile(allowed, refuse(libc::EPERM), SeccompAction::Allow)?,
        // Its arguments are in memory, where no filter sees them. With this answer libraries go on with `clone`.
        compile(clone3, SeccompAction::Allow, refuse(libc::ENOSYS))?,
    ])
}

fn allowed(capabilities: Capabilities) -> Result<Rules, Failure> {
    let mut rules = Rules::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let condition = words.next().unwrap_or_default();
        if condition == "always" || capabilities.has(condition) {
            let numbers = words.filter_map(|name| name.parse::<Sysno>().ok()).map(|call| i64::from(call.id()));
            rules.extend(numbers.map(|number| (number, Vec::new())));
        }
    }
    let families = SOCKET_FAMILIES.iter().map(|family| first_argument(SeccompCmpOp::Eq, *family));
    let below = first_argument(SeccompCmpOp::Lt, SOCKET_FAMILIES_BELOW);
    let personalities = PERSONALITIES.iter().map(|persona| first_argument(SeccompCmpOp::Eq, *persona));
    let conditional = [
        (Sysno::socket, std::iter::once(below).chain(families).collect::<Result<Vec<_>, _>>()?),
        (Sysno::personality, personalities.collect::<Result<Vec<_>, _>>()?),
        (Sysno::clone, vec![first_argument(SeccompCmpOp::MaskedEq(NAMESPACES), 0)?]),
    ];
    rules.extend(conditional.map(|(call, rule)| (i64::from(call.id()), rule)));
    Ok(rules)
}

fn first_argument(compare: SeccompCmpOp, value: u64) -> Result<SeccompRule, Failure> {
    SeccompCondition::new(0, SeccompCmpArgLen::Dword, compare, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(failed)
}

fn compile(rules: Rules, other: SeccompAction, listed: SeccompAction) -> Result<BpfProgram, Failure> {
    let machine = TargetArch::try_from(std::env::consts::ARCH).map_err(failed)?;
    SeccompFilter::new(rules, other, listed, machine).and_then(BpfProgram::try_from).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::words(format!("make the seccomp filter: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_the_kernel() {
        // A program may have 4096 instructions.
        for capabilities in [Capabilities::DEFAULT, Capabilities::NONE] {
            let lengths = runtime_default(capabilities).unwrap().map(|program| program.len());
            assert!(lengths.iter().all(|length| (1..4096).contains(length)), "{lengths:?}");
        }
    }

    #[test]
    fn calls_depend_on_capabilities() {
        let has = |capabilities, call: Sysno| allowed(capabilities).unwrap().contains_key(&i64::from(call.id()));
        assert!(has(Capabilities::DEFAULT, Sysno::chroot) && !has(Capabilities::NONE, Sysno::chroot));
        for call in [Sysno::mount, Sysno::unshare, Sysno::bpf, Sysno::keyctl, Sysno::kexec_load] {
            assert!(!has(Capabilities::DEFAULT, call), "{call}");
        }
    }
}
