//! Exit codes: published, never changed.

/// What the program ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Code(pub u8);

/// Done, or the asked-for condition holds.
pub const DONE: Code = Code(0);
/// The operation failed.
pub const FAILED: Code = Code(1);
/// Wrong usage.
pub const USAGE: Code = Code(2);
/// `status`: not running.
pub const NOT_RUNNING: Code = Code(3);
/// No such module.
pub const UNKNOWN: Code = Code(4);
/// Refused by policy, trust or admission.
pub const REFUSED: Code = Code(5);
/// The daemon can't be reached.
pub const UNREACHABLE: Code = Code(6);
/// Not yet in the wanted state.
pub const NOT_YET: Code = Code(7);
/// `plan`: something would change.
pub const PENDING: Code = Code(8);
/// A timeout expired.
pub const TIMEOUT: Code = Code(124);
/// `run`: lair itself failed.
pub const RUN_FAILED: Code = Code(125);
/// `run`: the command can't be executed.
pub const RUN_CANNOT_EXECUTE: Code = Code(126);
/// `run`: the command was not found.
pub const RUN_NOT_FOUND: Code = Code(127);

/// The exit code of a stable error code.
#[must_use]
pub fn of_error(code: &str) -> Code {
    match code {
        "unknown_module" => UNKNOWN,
        "not_running" => NOT_RUNNING,
        "timeout" => TIMEOUT,
        "usage" | "invalid_params" | "unknown_method" => USAGE,
        "unreachable" | "unsupported_version" => UNREACHABLE,
        "untrusted"
        | "lan_not_allowed"
        | "port_taken"
        | "checksum_mismatch"
        | "mode_unavailable"
        | "not_permitted"
        | "injection_disabled"
        | "refused"
        | "policy"
        | "policy_denied"
        | "no_mode"
        | "admission"
        | "overcommitted"
        | "unsupported"
        | "limit_unenforceable"
        | "sandbox_unavailable"
        | "busy" => REFUSED,
        _ => FAILED,
    }
}

/// `serve`: the root actor died, and its modules with it.
pub const ROOT_DIED: Code = Code(70);
