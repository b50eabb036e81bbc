//! The commands that look, print and end.

use std::io::{self, BufRead as _, Write as _};

use crate::check;
use crate::config::{Config, Exit, StatusArgs, TokenCommand};
use crate::embedded;
use crate::serve;
use crate::telemetry::logging::chain;

/// `check`: one line per thing looked at.
pub async fn check(config: &Config) -> Exit {
    let findings = check::run(config).await;
    for finding in &findings {
        print(&finding.to_string());
    }
    match findings.iter().all(check::Finding::is_ok) {
        true => Exit::Done,
        false => Exit::NotReady,
    }
}

/// `status`: what a running instance does.
pub async fn status(config: &Config, arguments: &StatusArgs) -> Exit {
    let url = arguments.url.clone().unwrap_or_else(|| format!("http://{}", config.http.listen));
    match serve::fetch_status(&url, arguments.token.as_ref()).await {
        Ok(status) => {
            print(status.to_string().trim_end());
            match status.readiness.values().all(|leg| leg.moving) {
                true => Exit::Done,
                false => Exit::NotReady,
            }
        }
        Err(error) => {
            complain(&chain(&error));
            Exit::NotReady
        }
    }
}

/// `embedded fetch`: downloads the engine's library.
pub async fn fetch(config: &Config) -> Exit {
    let options = config.embedded.clone();
    let fetched = tokio::task::spawn_blocking(move || embedded::fetch(&options)).await;
    match fetched.expect("a download does not panic") {
        Ok(path) => {
            print(&format!("the engine's library is {}", path.display()));
            Exit::Done
        }
        Err(error) => {
            complain(&chain(&error));
            Exit::Failed
        }
    }
}

/// `token new` and `token hash`.
pub fn token(command: TokenCommand) -> Exit {
    let token = match command {
        TokenCommand::New => serve::new_token(),
        TokenCommand::Hash => {
            let mut line = String::new();
            if let Err(error) = io::stdin().lock().read_line(&mut line) {
                complain(&format!("cannot read the token from standard input: {error}"));
                return Exit::Usage;
            }
            line.trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    if token.is_empty() {
        complain("there is no token on standard input");
        return Exit::Usage;
    }
    if matches!(command, TokenCommand::New) {
        print(&format!("token = {token}"));
    }
    print(&format!("hash = \"{}\"", serve::hash_token(&token)));
    Exit::Done
}

/// Says on standard error why the program ends.
pub fn complain(sentence: &str) {
    // There is nobody left to tell if standard error is closed.
    drop(writeln!(io::stderr(), "tailwater: {sentence}"));
}

fn print(text: &str) {
    // A closed pipe (`tailwater status | head -1`) is the reader's choice.
    drop(writeln!(io::stdout(), "{text}"));
}
