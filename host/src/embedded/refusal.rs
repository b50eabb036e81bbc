//! Errors of a statement, in the engine's own words and codes, as HTTP answers.

use hyper::StatusCode;

const SYNTAX_ERROR: u32 = 62;
const UNKNOWN_SETTING: u32 = 115;
const CANNOT_DECOMPRESS: u32 = 271;
const NOT_IMPLEMENTED: u32 = 48;
const AUTHENTICATION_FAILED: u32 = 516;
const TOO_LARGE: u32 = 307;
const NETWORK_ERROR: u32 = 210;

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// ClickHouse's number for it; 0 is unknown.
    pub(super) code: u32,
    /// `Code: 60. DB::Exception: ... (UNKNOWN_TABLE)`.
    pub(super) text: String,
}

impl Refusal {
    fn new(code: u32, name: &str, text: &str) -> Refusal {
        Refusal { code, text: format!("Code: {code}. DB::Exception: {text} ({name})") }
    }

    /// The engine's error, whose code the engine sometimes says twice.
    pub(super) fn engine(text: &str) -> Refusal {
        let text = text.trim();
        let code = code_of(text).unwrap_or(0);
        let prefix = format!("Code: {code}. DB::Exception: ");
        let inner = text.strip_prefix(&prefix).filter(|inner| inner.starts_with(&prefix));
        Refusal { code, text: inner.unwrap_or(text).to_owned() }
    }

    pub(super) fn authentication() -> Refusal {
        Refusal::new(
            AUTHENTICATION_FAILED,
            "AUTHENTICATION_FAILED",
            "default: Authentication failed: password is incorrect, or there is no user with such \
             name.",
        )
    }

    pub(super) fn sessions() -> Refusal {
        let text = "the embedded engine keeps no sessions: leave out session_id.";
        Refusal::new(NOT_IMPLEMENTED, "NOT_IMPLEMENTED", text)
    }

    pub(super) fn from_input() -> Refusal {
        let text = "the embedded engine does not read rows through input(): insert into the table \
                    directly.";
        Refusal::new(NOT_IMPLEMENTED, "NOT_IMPLEMENTED", text)
    }

    pub(super) fn unknown_setting(name: &str) -> Refusal {
        let text = format!("Unknown setting '{}'.", name.escape_default());
        Refusal::new(UNKNOWN_SETTING, "UNKNOWN_SETTING", &text)
    }

    pub(super) fn content_encoding(name: &str) -> Refusal {
        let text = format!(
            "Content-Encoding '{}' is not supported: send gzip, or compressed blocks with \
             decompress=1.",
            name.escape_default()
        );
        Refusal::new(NOT_IMPLEMENTED, "NOT_IMPLEMENTED", &text)
    }

    pub(super) fn compression(error: &dyn std::error::Error) -> Refusal {
        Refusal::new(CANNOT_DECOMPRESS, "CANNOT_DECOMPRESS", &format!("{error}."))
    }

    pub(super) fn form() -> Refusal {
        Refusal::new(SYNTAX_ERROR, "SYNTAX_ERROR", "the form in the body is malformed.")
    }

    pub(super) fn unreadable() -> Refusal {
        let text = "Syntax error: the text is no statement that the engine understands.";
        Refusal::new(SYNTAX_ERROR, "SYNTAX_ERROR", text)
    }

    pub(super) fn several() -> Refusal {
        let text = "Syntax error (Multi-statements are not allowed).";
        Refusal::new(SYNTAX_ERROR, "SYNTAX_ERROR", text)
    }

    pub(super) fn too_long(limit: usize) -> Refusal {
        let text = format!("the statement is longer than {limit} bytes.");
        Refusal::new(TOO_LARGE, "TOO_MANY_BYTES", &text)
    }

    pub(super) fn body_cut_short() -> Refusal {
        let text = "the request's body ended before its end; nothing more is stored.";
        Refusal::new(NETWORK_ERROR, "NETWORK_ERROR", text)
    }

    pub(super) fn stopping() -> Refusal {
        Refusal::new(NETWORK_ERROR, "NETWORK_ERROR", "the engine is stopping.")
    }

    pub(super) fn no_connection() -> Refusal {
        Refusal::new(NETWORK_ERROR, "NETWORK_ERROR", "the engine opens no further session.")
    }

    /// The status that a server answers with.
    pub(super) fn status(&self) -> StatusCode {
        match self.code {
            AUTHENTICATION_FAILED | 192 | 193 | 194 | 497 => StatusCode::FORBIDDEN,
            6 | 26 | 27 | 36 | 38 | 41 | 43 | 53 | 62 | 69 | 70 | 72 | 73 | 115 | 117 | 130
            | 131 | 271 | 349 | 386 | 456 | 457 => StatusCode::BAD_REQUEST,
            16 | 46 | 47 | 50 | 60 | 81 => StatusCode::NOT_FOUND,
            TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
            NOT_IMPLEMENTED => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

fn code_of(text: &str) -> Option<u32> {
    let rest = text.strip_prefix("Code: ")?;
    let end = rest.find(|character: char| !character.is_ascii_digit())?;
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_code_is_read_and_said_once() {
        let once = "Code: 115. DB::Exception: Unknown setting 'a'. (UNKNOWN_SETTING)";
        let twice = format!("Code: 115. DB::Exception: {once}\n");
        let refusal = Refusal::engine(&twice);
        assert_eq!((refusal.code, refusal.text.as_str()), (115, once));
        assert_eq!(refusal.status(), StatusCode::BAD_REQUEST);
        assert_eq!(Refusal::engine(once).text, once);
        assert_eq!(Refusal::engine("no idea").status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
