//! The numbers behind a user's name, from /etc/passwd and /etc/group (passwd(5), group(5)).

use super::{fault, io_fault};
use lair_supervision::{StartFault, StartStage};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;

/// A user's numbers.
pub(super) struct Account {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    name: String,
    home: String,
}

impl Account {
    /// What a login would set, where the manifest does not.
    pub fn environment(&self, given: &BTreeMap<String, String>) -> Vec<CString> {
        let own = [
            ("HOME", &self.home),
            ("USER", &self.name),
            ("LOGNAME", &self.name),
        ];
        own.into_iter()
            .filter(|(name, _)| !given.contains_key(*name))
            .filter_map(|(name, value)| CString::new(format!("{name}={value}")).ok())
            .collect()
    }
}

/// Finds a user by name or number.
pub(super) fn find(user: &str) -> Result<Account, StartFault> {
    let read = |path: &str| {
        fs::read_to_string(path)
            .map_err(|e| io_fault(StartStage::DropPrivileges, &format!("read {path}"), &e))
    };
    let line = read("/etc/passwd")?
        .lines()
        .map(|l| l.split(':').map(str::to_owned).collect::<Vec<_>>())
        .find(|f| f.len() >= 4 && (f[0] == user || f[2] == user))
        .ok_or_else(|| unknown(user))?;
    let number = |text: &str| text.parse::<u32>().map_err(|_| unknown(user));
    let (uid, gid) = (number(&line[2])?, number(&line[3])?);
    let mut groups: Vec<u32> = read("/etc/group")?
        .lines()
        .map(|l| l.split(':').collect::<Vec<_>>())
        .filter(|f| f.len() >= 4 && f[3].split(',').any(|member| member == line[0]))
        .filter_map(|f| f[2].parse().ok())
        .collect();
    groups.push(gid);
    let home = line.get(5).filter(|home| !home.is_empty());
    Ok(Account {
        uid,
        gid,
        groups,
        name: line[0].clone(),
        home: home.map_or_else(|| "/".to_owned(), Clone::clone),
    })
}

fn unknown(user: &str) -> StartFault {
    fault(
        StartStage::DropPrivileges,
        Some(libc::ENOENT),
        format!("no user `{user}` in /etc/passwd"),
    )
}
