//! Tokens: kept as hashes, compared in constant time, never printed.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::options::Options;
use super::tables::PIPE_SUFFIX;
use crate::failpoint;

/// `[[http.token]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Whose it is; the only part of it that appears in answers and logs.
    pub name: String,
    /// SHA-256 of the token, in hex: what `tailwater token hash` prints.
    pub hash: TokenHash,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

/// What a token may do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Scope {
    /// `pipe:users_snapshot`: read this pipe.
    Pipe(String),
    /// `pipe:*`: read every pipe.
    AnyPipe,
    /// `sql`: run read-only statements, and so read everything.
    Sql,
    /// `metrics`: read `/metrics`.
    Metrics,
    /// `admin`: read `/metrics` and `/v0/status`, reload plugins, have tables copied again, see,
    /// redrive and drop dead letters with their rows. No other rows.
    Admin,
}

impl TryFrom<String> for Scope {
    type Error = String;

    fn try_from(text: String) -> Result<Scope, String> {
        match text.as_str() {
            "pipe:*" => Ok(Scope::AnyPipe),
            "sql" => Ok(Scope::Sql),
            "metrics" => Ok(Scope::Metrics),
            "admin" => Ok(Scope::Admin),
            other => match other.strip_prefix("pipe:") {
                Some(pipe) if is_pipe(pipe) => Ok(Scope::Pipe(pipe.to_owned())),
                Some(_) => Err(format!(
                    "`{text}` can cover no pipe; write `pipe:<table>_snapshot`, as every pipe is called, or \
                     `pipe:*` for all"
                )),
                None => Err(format!(
                    "unknown scope `{text}`; allowed: `pipe:<name>`, `pipe:*`, `sql`, `metrics`, \
                     `admin`"
                )),
            },
        }
    }
}

/// Whether a pipe may have that name, whichever tables there are.
fn is_pipe(name: &str) -> bool {
    name.strip_suffix(PIPE_SUFFIX).is_some_and(|view| !view.is_empty())
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Pipe(name) => write!(f, "pipe:{name}"),
            Scope::AnyPipe => f.write_str("pipe:*"),
            Scope::Sql => f.write_str("sql"),
            Scope::Metrics => f.write_str("metrics"),
            Scope::Admin => f.write_str("admin"),
        }
    }
}

impl Token {
    /// Whether one of the scopes covers what is needed.
    #[must_use]
    pub fn may(&self, needed: &Scope) -> bool {
        self.scopes.iter().any(|scope| match (scope, needed) {
            (Scope::AnyPipe, Scope::Pipe(_)) | (Scope::Admin, Scope::Metrics) => true,
            (scope, needed) => scope == needed,
        })
    }
}

/// SHA-256 of a token.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TokenHash([u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl TryFrom<String> for TokenHash {
    type Error = String;

    fn try_from(text: String) -> Result<TokenHash, String> {
        let wrong =
            || "not a token's hash; it has 64 hex digits, see `tailwater token hash`".into();
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut hash = [0; 32];
        for (index, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| wrong())?;
        }
        Ok(TokenHash(hash))
    }
}

/// The tokens in force; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Arc<RwLock<Arc<[Token]>>>);

impl Tokens {
    pub(super) fn new(tokens: &[Token]) -> Tokens {
        Tokens(Arc::new(RwLock::new(tokens.into())))
    }

    pub(super) fn current(&self) -> Arc<[Token]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts those of `options` in force from the next request on. Answers that have begun go on. How
    /// many there are now.
    ///
    /// # Errors
    /// A sentence with what to change; the tokens stay as they were. The last token does not go
    /// without a restart, so that a file that was cut short does not open everything.
    pub fn replace(&self, options: &Options) -> Result<usize, String> {
        options.validate()?;
        let mut tokens = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if options.token.is_empty() && !tokens.is_empty() {
            return Err("the settings have no [[http.token]] any more, and without one everybody \
                        on this machine could read everything; restart to do without"
                .to_owned());
        }
        failpoint::pass("during_token_reload");
        *tokens = options.token.as_slice().into();
        Ok(tokens.len())
    }
}

/// The token that was presented, if there is one. Looks at every hash whatever the outcome, so that
/// the time tells nothing.
pub(super) fn find<'t>(tokens: &'t [Token], presented: &str) -> Option<&'t Token> {
    let digest: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
    tokens.iter().fold(None, |found, token| {
        let same: bool = token.hash.0.ct_eq(&digest).into();
        if same { Some(token) } else { found }
    })
}

/// The hash to put into the configuration: 64 hex digits.
#[must_use]
pub fn hash_token(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A token of 256 random bits, from the system's generator.
#[must_use]
pub fn new_token() -> String {
    use base64::Engine as _;
    let bytes: [u8; 32] = rand::random();
    format!("tw_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, scopes: &[&str]) -> Token {
        Token {
            name: name.to_owned(),
            hash: hash_token(name).try_into().unwrap(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned().try_into().unwrap()).collect(),
        }
    }

    #[test]
    fn new_tokens_are_in_force_at_once_and_the_last_one_does_not_go() {
        let tokens = Tokens::new(&[token("old", &["sql"])]);
        let with = |token: Vec<Token>| Options { token, ..Options::default() };
        let names = || tokens.current().iter().map(|token| token.name.clone()).collect::<Vec<_>>();

        let refused = tokens.replace(&with(Vec::new())).unwrap_err();
        assert!(refused.contains("no [[http.token]] any more"), "{refused}");
        let twice = with(vec![token("a", &["sql"]), token("a", &["sql"])]);
        assert!(tokens.replace(&twice).unwrap_err().contains("the name `a`"));
        assert_eq!(names(), ["old"]);

        let two = with(vec![token("new", &["sql"]), token("other", &["pipe:*"])]);
        assert_eq!(tokens.replace(&two), Ok(2));
        assert_eq!(names(), ["new", "other"]);
    }

    #[test]
    fn scopes_cover_what_they_say_and_no_more() {
        let pipe = |name: &str| Scope::Pipe(name.to_owned());
        let cases: [(&[&str], Scope, bool); 10] = [
            (&["pipe:users_snapshot"], pipe("users_snapshot"), true),
            (&["pipe:users_snapshot"], pipe("orders_snapshot"), false),
            (&["pipe:*"], pipe("orders_snapshot"), true),
            (&["pipe:*"], Scope::Sql, false),
            (&["sql"], pipe("users_snapshot"), false),
            (&["admin"], Scope::Sql, false),
            (&["admin"], Scope::Metrics, true),
            (&["metrics"], Scope::Admin, false),
            (&[], Scope::Admin, false),
            (&["sql", "admin"], Scope::Admin, true),
        ];
        for (scopes, needed, may) in cases {
            assert_eq!(token("x", scopes).may(&needed), may, "{scopes:?} for {needed}");
        }
    }

    #[test]
    fn a_scope_that_can_cover_no_pipe_is_refused() {
        for wrong in
            ["pipe:users", "pipe:", "pipe:_snapshot", "pipe:users_snapshot.json", "pipe:u*"]
        {
            let refused = Scope::try_from(wrong.to_owned()).unwrap_err();
            let said = format!("`{wrong}` can cover no pipe; write `pipe:<table>_snapshot`");
            assert!(refused.starts_with(&said), "{refused}");
        }
    }

    #[test]
    fn only_the_very_token_is_found() {
        let tokens = [token("first", &[]), token("second", &[])];
        assert_eq!(find(&tokens, "second").map(|token| token.name.as_str()), Some("second"));
        for wrong in ["", "secon", "second ", "Second", &hash_token("second")] {
            assert!(find(&tokens, wrong).is_none(), "{wrong}");
        }
        for byte in 0..32 {
            let mut near = token("second", &[]);
            near.hash.0[byte] ^= 1;
            assert!(find(&[near], "second").is_none(), "all but byte {byte} are the same");
        }
    }

    #[test]
    fn new_tokens_differ_and_hashes_are_readable_settings() {
        let (one, other) = (new_token(), new_token());
        assert_ne!(one, other);
        assert!(one.len() > 40);
        assert!(TokenHash::try_from(hash_token(&one)).is_ok());
        for wrong in ["", "abc", &"é".repeat(32), &"g".repeat(64)] {
            let said = TokenHash::try_from(wrong.to_owned()).unwrap_err();
            assert!(
                said.starts_with("not a token's hash; it has 64 hex digits"),
                "{wrong}: {said}"
            );
        }
    }
}
