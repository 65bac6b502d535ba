//! The log path on real pipes and real files: the faults of family E at the pump, the
//! round trip of every byte, rotation, retention, compression and reading.

mod bench;
mod desk;
mod faults;
mod keeping;
mod reading;
mod roundtrip;
mod traced;
