//! Secrets on the command line. Everybody on the machine can read `/proc/PID/cmdline`, but only the
//! same user `/proc/PID/environ`. So a secret found in an argument is moved into the variable that
//! stands for the option, and the program takes its own place.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::process;

use clap::builder::Resettable;
use clap::{Command, CommandFactory as _, FromArgMatches as _};

use super::{Cli, redact_url};

/// Options whose values are secrets, or may hold one, and the variables that stand for them.
const SECRETS: [(&str, &str); 2] =
    [("--source", "TAILWATER_SOURCE"), ("--token", "TAILWATER_TOKEN")];

/// Reads a command line, the program's name first.
///
/// # Errors
/// The text for the terminal, and what the process tells the shell. Help and the version, too, are
/// texts. What was mistyped is repeated without the passwords in it.
pub fn read_arguments(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let is_empty = |variable: &OsStr| std::env::var_os(variable).is_some_and(|v| v.is_empty());
    let mut command = without_variables(Cli::command(), &is_empty);
    let matches = command.try_get_matches_from_mut(arguments);
    let read = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    read.map_err(|error| error.format(&mut command)).map_err(|error| {
        let text = error.to_string();
        let shown = arguments.iter().fold(text.clone(), |text, argument| hide(&text, argument));
        // The error as it was has colours.
        if shown == text { error } else { clap::Error::raw(error.kind(), without_title(&shown)) }
    })
}

/// A variable that is empty counts as unset: so a service's environment takes one back.
fn without_variables(command: Command, is_empty: &dyn Fn(&OsStr) -> bool) -> Command {
    let command = command.mut_args(|argument| match argument.get_env() {
        Some(variable) if is_empty(variable) => argument.env(Resettable::Reset),
        Some(_) | None => argument,
    });
    command.mut_subcommands(|command| without_variables(command, is_empty))
}

/// A raw error gets the title once more.
fn without_title(text: &str) -> &str {
    text.strip_prefix("error: ").unwrap_or(text)
}

/// Replaces the argument, or its value, where the text repeats it and it holds a secret.
fn hide(text: &str, argument: &OsString) -> String {
    let argument = argument.to_string_lossy();
    let value = argument.strip_prefix("--").and_then(|option| Some(option.split_once('=')?.1));
    let parts = std::iter::once(&*argument).chain(value).filter(|part| !part.is_empty());
    parts.fold(text.to_owned(), |text, part| text.replace(part, &redact_url(part)))
}

/// Starts this process over, under the same id, if its arguments hold a secret: with the variables
/// in their place. Returns if there is none. To be called before there are threads, with arguments
/// that [`read_arguments`] took.
///
/// # Errors
/// The system does not let the program start itself.
pub fn move_secrets(arguments: &[OsString]) -> io::Result<()> {
    let (kept, moved) = part(arguments);
    let (false, Some((name, rest))) = (moved.is_empty(), kept.split_first()) else {
        return Ok(());
    };
    let mut command = process::Command::new(std::env::current_exe()?);
    Err(command.arg0(name).args(rest).envs(moved).exec())
}

type Moved = Vec<(&'static str, OsString)>;

/// The arguments that everybody may see, and the others as variables.
fn part(arguments: &[OsString]) -> (Vec<OsString>, Moved) {
    let (mut kept, mut moved) = (Vec::new(), Moved::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            kept.push(argument.clone());
            kept.extend(rest.cloned());
            break;
        }
        match secret(argument) {
            None => kept.push(argument.clone()),
            Some((variable, Some(value))) => moved.push((variable, value)),
            Some((variable, None)) => moved.extend(rest.next().map(|v| (variable, v.clone()))),
        }
    }
    (kept, moved)
}

/// The variable for this option, and its value if that is in the same argument.
fn secret(argument: &OsString) -> Option<(&'static str, Option<OsString>)> {
    SECRETS.iter().find_map(|(option, variable)| {
        let rest = argument.as_bytes().strip_prefix(option.as_bytes())?;
        match rest.strip_prefix(b"=") {
            Some(value) => Some((*variable, Some(OsString::from_vec(value.to_vec())))),
            None => rest.is_empty().then_some((*variable, None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn secrets_become_variables_and_the_rest_stays() {
        let url = "postgres://u:pw@h/d";
        let cases = [
            ("t run --source postgres://u:pw@h/d --role all", "t run --role all"),
            ("t run --source=postgres://u:pw@h/d", "t run"),
            ("t --log-level debug check --source postgres://u:pw@h/d", "t --log-level debug check"),
        ];
        for (given, left) in cases {
            let (kept, moved) = part(&arguments(given));
            assert_eq!(kept, arguments(left));
            assert_eq!(moved, [("TAILWATER_SOURCE", OsString::from(url))]);
            assert_eq!(part(&kept).1, [], "it starts over only once");
        }
        let (kept, moved) = part(&arguments("t status --token=tw_1 --url http://h"));
        assert_eq!(kept, arguments("t status --url http://h"));
        assert_eq!(moved, [("TAILWATER_TOKEN", OsString::from("tw_1"))]);
    }

    #[test]
    fn what_is_no_option_stays() {
        for given in ["t run", "t plugin test -- --source x", "t run --sources x --tokens"] {
            assert_eq!(part(&arguments(given)), (arguments(given), Vec::new()), "{given}");
        }
    }

    #[test]
    fn the_variables_are_those_that_the_options_read() {
        use clap::CommandFactory as _;
        let mut named = Vec::new();
        let mut commands = vec![Cli::command()];
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().cloned());
            for argument in command.get_arguments() {
                let (Some(long), Some(variable)) = (argument.get_long(), argument.get_env()) else {
                    continue;
                };
                if argument.is_hide_env_values_set() {
                    named.push((format!("--{long}"), variable.to_string_lossy().into_owned()));
                }
            }
        }
        named.sort();
        named.dedup();
        assert_eq!(named, SECRETS.map(|(option, name)| (option.to_owned(), name.to_owned())));
    }

    #[test]
    fn an_address_that_is_a_name_is_told_what_is_wanted() {
        let error = read_arguments(&arguments("t run --listen localhost:7447")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no IP address with a port, as in 127.0.0.1:7447"), "{text}");
    }

    #[test]
    fn variables_that_are_empty_are_not_read() {
        fn read(command: &Command) -> Vec<String> {
            let own = command.get_arguments().filter_map(|argument| argument.get_env());
            let own = own.map(|variable| variable.to_string_lossy().into_owned());
            own.chain(command.get_subcommands().flat_map(read)).collect()
        }
        let all = read(&Cli::command());
        assert!(all.contains(&"TAILWATER_CONFIG".to_owned()), "{all:?}");
        let less = read(&without_variables(Cli::command(), &|name| name == "TAILWATER_TOKEN"));
        let kept: Vec<_> = all.into_iter().filter(|name| name != "TAILWATER_TOKEN").collect();
        assert_eq!(less, kept);
        assert_eq!(read(&without_variables(Cli::command(), &|_| true)), [""; 0]);
    }

    #[test]
    fn a_mistyped_command_line_is_repeated_without_its_password() {
        for given in [
            "t run postgres://u:geheim@h/d",
            "t run --listen postgres://u:geheim@h/d",
            "t run --listen=postgres://u:geheim@h/d",
            "t run --sorce=postgres://u:geheim@h/d",
            "t run --sorce postgres://u:geheim@h/d",
            "t postgres://u:geheim@h/d",
        ] {
            let error = read_arguments(&arguments(given)).expect_err(given);
            let text = error.to_string();
            assert!(!text.contains("geheim"), "{text}");
            assert!(text.starts_with("error: ") && text.contains("--help"), "{text}");
            assert_eq!(error.exit_code(), 2);
        }
        let help = read_arguments(&arguments("t --help")).unwrap_err();
        assert_eq!(help.exit_code(), 0);
    }
}
