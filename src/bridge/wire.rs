//! The documented JSON types: requests, replies, errors.
//!
//! Promises: one reply is one line; an id comes back byte for byte; an error always carries a stable string code.

use crate::codes::next_step;
use crate::handle::Refused;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// JSON-RPC's own error numbers, and one for everything that lair refuses.
pub mod number {
    /// Not JSON.
    pub const PARSE: i32 = -32_700;
    /// JSON, but no request.
    pub const INVALID_REQUEST: i32 = -32_600;
    /// No such method.
    pub const UNKNOWN_METHOD: i32 = -32_601;
    /// Parameters that the method does not take.
    pub const INVALID_PARAMS: i32 = -32_602;
    /// A bug of lair.
    pub const INTERNAL: i32 = -32_603;
    /// Refused or failed: `data.code` says why.
    pub const REFUSED: i32 = -32_000;
}

/// A request or notification, as sent.
#[derive(Debug)]
pub struct Request<'a> {
    /// The id's own text; `None`: a notification, never answered.
    pub id: Option<&'a str>,
    /// Method name.
    pub method: Cow<'a, str>,
    /// Parameters: an object, as text.
    pub params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct IdOnly<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
}

/// `"id": null` is there, as opposed to no id.
fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(d).map(Some)
}

/// An error, and the id it belongs to (`null` where none could be read).
#[derive(Debug)]
pub struct BadRequest<'a> {
    /// The id's text.
    pub id: &'a str,
    /// What is wrong.
    pub error: RpcError,
}

impl<'a> Request<'a> {
    /// Reads one line.
    ///
    /// # Errors
    /// It is not JSON, or not a JSON-RPC 2.0 request.
    pub fn parse(line: &'a str) -> Result<Self, Box<BadRequest<'a>>> {
        let envelope: Envelope<'a> = serde_json::from_str(line).map_err(|e| malformed(line, &e))?;
        let id = match envelope.id.map(RawValue::get) {
            Some(id) if !is_id(id) => {
                let error = RpcError::invalid_request("the id is neither a number nor a string");
                return Err(Box::new(BadRequest { id: "null", error }));
            }
            id => id,
        };
        let refuse = |error| {
            let id = id.unwrap_or("null");
            Box::new(BadRequest { id, error })
        };
        if envelope.jsonrpc.as_deref() != Some("2.0") {
            let error = RpcError::invalid_request("`jsonrpc` is not \"2.0\"");
            return Err(refuse(error.with_code("unsupported_version")));
        }
        let params = match envelope.params {
            Some(p) if p.get().starts_with('{') => Some(p),
            None => None,
            Some(_) => {
                let error = RpcError::invalid_params("parameters are given by name, as an object");
                return Err(refuse(error));
            }
        };
        Ok(Request {
            id,
            method: envelope.method,
            params,
        })
    }
}

fn is_id(text: &str) -> bool {
    text == "null" || matches!(text.as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9'))
}

fn malformed<'a>(line: &'a str, error: &serde_json::Error) -> Box<BadRequest<'a>> {
    if let Err(e) = serde_json::from_str::<&RawValue>(line) {
        let error = RpcError {
            number: number::PARSE,
            message: format!("not JSON: {e}"),
            code: "parse_error".into(),
            help: Some("send one JSON object per line".into()),
            evidence: Value::Null,
        };
        return Box::new(BadRequest { id: "null", error });
    }
    let id = serde_json::from_str::<IdOnly<'a>>(line)
        .ok()
        .and_then(|x| x.id)
        .map(RawValue::get)
        .filter(|id| is_id(id));
    let mut error = RpcError::invalid_request(&error.to_string());
    if line.trim_start().starts_with('[') {
        error.help = Some("batches are not taken; send several lines".into());
    }
    let id = id.unwrap_or("null");
    Box::new(BadRequest { id, error })
}

/// An error, before it is written.
#[derive(Clone, Debug)]
pub struct RpcError {
    /// JSON-RPC's number.
    pub number: i32,
    /// One sentence.
    pub message: String,
    /// Stable string code.
    pub code: Cow<'static, str>,
    /// What to do now.
    pub help: Option<String>,
    /// What was seen.
    pub evidence: Value,
}

impl RpcError {
    fn new(number: i32, code: &'static str, message: &str) -> Self {
        RpcError {
            number,
            message: message.to_owned(),
            code: Cow::Borrowed(code),
            help: None,
            evidence: Value::Null,
        }
    }

    /// JSON, but no request.
    #[must_use]
    pub fn invalid_request(message: &str) -> Self {
        RpcError::new(number::INVALID_REQUEST, "invalid_request", message)
    }

    /// Parameters that the method does not take.
    #[must_use]
    pub fn invalid_params(message: &str) -> Self {
        RpcError::new(number::INVALID_PARAMS, "invalid_params", message)
    }

    /// No such method.
    #[must_use]
    pub fn unknown_method(method: &str) -> Self {
        let shown: String = method.chars().take(80).collect();
        let mut error = RpcError::new(
            number::UNKNOWN_METHOD,
            "unknown_method",
            &format!("there is no method {shown:?}"),
        );
        error.help = Some("rpc.discover lists the methods".into());
        error
    }

    /// Refused or failed for a reason with a code.
    #[must_use]
    pub fn refused(code: &'static str, message: &str) -> Self {
        RpcError::new(number::REFUSED, code, message)
    }

    /// A bug of lair.
    #[must_use]
    pub fn internal(message: &str) -> Self {
        RpcError::new(number::INTERNAL, "internal", message)
    }

    /// The same with another string code.
    #[must_use]
    pub fn with_code(mut self, code: &'static str) -> Self {
        self.code = Cow::Borrowed(code);
        self
    }

    /// The same with a next step.
    #[must_use]
    pub fn with_help(mut self, help: &str) -> Self {
        self.help = Some(help.to_owned());
        self
    }
}

impl From<super::frame::FrameError> for RpcError {
    fn from(e: super::frame::FrameError) -> Self {
        RpcError::new(number::PARSE, e.code(), &e.to_string())
    }
}

impl From<Refused> for RpcError {
    fn from(r: Refused) -> Self {
        RpcError {
            number: number::REFUSED,
            message: r.message,
            code: Cow::Borrowed(r.code),
            help: r.help,
            evidence: r.data,
        }
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: i32,
    message: &'a str,
    data: ErrorData<'a>,
}

#[derive(Serialize)]
struct ErrorData<'a> {
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
    #[serde(skip_serializing_if = "Value::is_null")]
    evidence: &'a Value,
}

/// Appends a reply with a result; on a value that can't be written, an `internal` error instead.
pub fn write_result<R: Serialize>(out: &mut Vec<u8>, id: &str, result: &R) {
    let start = out.len();
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(br#","result":"#);
    if let Err(e) = serde_json::to_writer(&mut *out, result) {
        out.truncate(start);
        return write_error(
            out,
            id,
            &RpcError::internal(&format!("can't write the result: {e}")),
        );
    }
    out.extend_from_slice(b"}\n");
}

/// Appends an error reply.
pub fn write_error(out: &mut Vec<u8>, id: &str, error: &RpcError) {
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(br#","error":"#);
    let body = ErrorBody {
        code: error.number,
        message: &error.message,
        data: ErrorData {
            code: &error.code,
            help: error.help.as_deref().or_else(|| next_step(&error.code)),
            evidence: &error.evidence,
        },
    };
    let start = out.len();
    if serde_json::to_writer(&mut *out, &body).is_err() {
        out.truncate(start);
        out.extend_from_slice(
            br#"{"code":-32603,"message":"internal","data":{"code":"internal"}}"#,
        );
    }
    out.extend_from_slice(b"}\n");
}

/// Appends a notification of a subscription.
pub fn write_notification<P: Serialize>(out: &mut Vec<u8>, method: &str, params: &P) {
    let start = out.len();
    out.extend_from_slice(br#"{"jsonrpc":"2.0","method":""#);
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(br#"","params":"#);
    if serde_json::to_writer(&mut *out, params).is_err() {
        out.truncate(start);
        return;
    }
    out.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod test {
    use super::*;

    fn code(line: &str) -> (String, i32, String) {
        let bad = Request::parse(line).expect_err(line);
        (bad.id.into(), bad.error.number, bad.error.code.into_owned())
    }

    #[test]
    fn an_id_comes_back_as_it_was_written() {
        for id in ["7", "-1", "1.50", "1e400", "\"a\\u0041\"", "null"] {
            let line = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"x"}}"#);
            assert_eq!(
                Request::parse(&line).map(|r| r.id.map(str::to_owned)).ok(),
                Some(Some(id.into()))
            );
        }
        let note = Request::parse(r#"{"jsonrpc":"2.0","method":"x"}"#);
        assert!(note.is_ok_and(|r| r.id.is_none()));
    }

    #[test]
    fn what_is_not_json_has_no_id() {
        for line in ["", "{", "\u{feff}{}", "{\"a\":\0}", "nul", "{\"id\":1,}"] {
            assert_eq!(
                code(line),
                ("null".into(), -32_700, "parse_error".into()),
                "{line:?}"
            );
        }
    }

    #[test]
    fn what_is_no_request_keeps_its_id() {
        for (line, id) in [
            ("[]", "null"),
            ("3", "null"),
            (r#"{"jsonrpc":"2.0","id":5}"#, "5"),
            (r#"{"jsonrpc":"2.0","id":5,"method":"x","extra":1}"#, "5"),
            (r#"{"jsonrpc":"2.0","id":5,"method":"x","method":"y"}"#, "5"),
            (r#"{"jsonrpc":"2.0","id":5,"id":6,"method":"x"}"#, "null"),
            (r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#, "null"),
        ] {
            assert_eq!(
                code(line),
                (id.into(), -32_600, "invalid_request".into()),
                "{line}"
            );
        }
        assert_eq!(
            code(r#"{"jsonrpc":"3.0","id":5,"method":"x"}"#),
            ("5".into(), -32_600, "unsupported_version".into())
        );
        assert_eq!(
            code(r#"{"jsonrpc":"2.0","id":5,"method":"x","params":[1]}"#),
            ("5".into(), -32_602, "invalid_params".into())
        );
    }
}
