//! The fields messages are made of, and the reader that trusts nothing.

use std::ffi::CString;
use std::fmt;

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireFault {
    /// It ends within a field.
    Short,
    /// It goes on after the last field.
    Trailing,
    /// No message has this tag.
    UnknownTag(u8),
    /// A field holds a value that its type does not have.
    BadValue,
}

impl fmt::Display for WireFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => out.write_str("message ends within a field"),
            Self::Trailing => out.write_str("message goes on after its last field"),
            Self::UnknownTag(tag) => write!(out, "no message has tag {tag}"),
            Self::BadValue => out.write_str("field with an impossible value"),
        }
    }
}

impl std::error::Error for WireFault {}

/// Appends fields to a reused buffer.
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn flag(&mut self, value: bool) {
        self.u8(value.into());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A count saturates: a list that long never fits a message, so its reader reports it as short.
    pub(super) fn count(&mut self, value: usize) {
        self.u32(u32::try_from(value).unwrap_or(u32::MAX));
    }

    pub(super) fn text(&mut self, value: &CString) {
        self.count(value.as_bytes().len());
        self.0.extend_from_slice(value.as_bytes());
    }

    pub(super) fn option<T: Copy>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(inner) = value {
            put(self, inner);
        }
    }

    pub(super) fn list<T>(&mut self, items: &[T], mut put: impl FnMut(&mut Self, &T)) {
        self.count(items.len());
        for item in items {
            put(self, item);
        }
    }
}

/// Takes fields off a datagram.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], WireFault> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(WireFault::Short)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireFault> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(WireFault::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireFault> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn flag(&mut self) -> Result<bool, WireFault> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireFault::BadValue),
        }
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireFault> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, WireFault> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireFault> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn text(&mut self) -> Result<CString, WireFault> {
        let count = usize::try_from(self.u32()?).map_err(|_| WireFault::Short)?;
        CString::new(self.take(count)?).map_err(|_| WireFault::BadValue)
    }

    pub(super) fn option<T>(
        &mut self,
        get: impl FnOnce(&mut Self) -> Result<T, WireFault>,
    ) -> Result<Option<T>, WireFault> {
        if self.flag()? {
            get(self).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Grows with what is really there, never by what the count claims.
    pub(super) fn list<T>(
        &mut self,
        mut get: impl FnMut(&mut Self) -> Result<T, WireFault>,
    ) -> Result<Vec<T>, WireFault> {
        let count = self.u32()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(get(self)?);
        }
        Ok(items)
    }

    pub(super) fn end(self) -> Result<(), WireFault> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(WireFault::Trailing)
        }
    }
}
