//! String literals of Rust code, and the calls that they stand in.

/// A string literal.
pub struct Literal {
    /// Without its escapes.
    pub text: String,
    /// The calls around it, the outermost first.
    pub calls: Vec<Call>,
}

/// A call, a macro's invocation or an attribute around a literal.
pub struct Call {
    /// What stands before its bracket, such as `anyhow::ensure!`, `leg.stalled` or `#`.
    pub name: String,
    /// Which of its arguments the literal belongs to.
    pub argument: usize,
}

impl Call {
    /// Whether its name is one of these, or ends with one, as `leg.stalled` does with `stalled`.
    pub fn is_one_of(&self, names: &[&str]) -> bool {
        let in_word = |front: &str| front.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        names.iter().any(|name| {
            let front = self.name.strip_suffix(name);
            front.is_some_and(|front| name.starts_with('.') || !in_word(front))
        })
    }
}

/// The string literals of Rust code; comments hold none.
pub fn literals(code: &str) -> Vec<Literal> {
    let (mut found, mut open, mut rest) = (Vec::new(), Vec::<(bool, Call)>::new(), code);
    while let Some(at) = rest.find(['"', '/', '\'', '(', '[', '{', ')', ']', '}', ',']) {
        let (before, next) = rest.split_at(at);
        rest = match next.as_bytes() {
            [b'/', b'/', ..] => next.split_once('\n').map_or("", |(_, next)| next),
            [b'\'', _, b'\'', ..] => &next[3..],
            [b'\'', b'\\', _, b'\'', ..] => &next[4..],
            [b'"', ..] => {
                let Some((text, next)) = literal(before, next) else { break };
                let calls = open.iter().filter(|(is_call, _)| *is_call);
                let calls = calls.map(|(_, Call { name, argument })| Call {
                    name: name.clone(),
                    argument: *argument,
                });
                found.push(Literal { text, calls: calls.collect() });
                next
            }
            [b'(' | b'[' | b'{', ..] => {
                let name = name(before);
                let is_call = !next.starts_with('{') || name.ends_with('!');
                open.push((is_call, Call { name: name.to_owned(), argument: 0 }));
                &next[1..]
            }
            [b')' | b']' | b'}', ..] => {
                open.pop();
                &next[1..]
            }
            [b',', ..] => {
                if let Some((_, call)) = open.last_mut() {
                    call.argument += 1;
                }
                &next[1..]
            }
            _ => &next[1..],
        };
    }
    found
}

/// What the code before a bracket ends with.
fn name(before: &str) -> &str {
    let other = |c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':' | '.' | '!' | '#'));
    let before = before.trim_end();
    before.rfind(other).map_or(before, |at| &before[at..]).trim_start_matches(other)
}

/// The literal that begins here, and what follows it.
fn literal<'a>(before: &str, code: &'a str) -> Option<(String, &'a str)> {
    let bare = before.trim_end_matches('#');
    if !bare.ends_with('r') {
        return escaped(&code[1..]);
    }
    let end = format!("\"{}", "#".repeat(before.len() - bare.len()));
    code[1..].split_once(&end).map(|(raw, next)| (raw.to_owned(), next))
}

/// A literal behind its first quote, without its escapes, and what follows it.
fn escaped(code: &str) -> Option<(String, &str)> {
    let (mut text, mut chars) = (String::new(), code.chars());
    loop {
        match chars.next()? {
            '"' => return Some((text, chars.as_str())),
            '\\' => match chars.next()? {
                '\n' => chars = chars.as_str().trim_start().chars(),
                'n' => text.push('\n'),
                escaped => text.push(escaped),
            },
            c => text.push(c),
        }
    }
}

#[test]
fn a_literal_is_known_with_the_calls_around_it_and_none_of_a_comment() {
    let code = r##"
        // one "comment", and what's more (
        let (quote, escaped, tick, bracket) = ('"', '\"', '\'', '(');
        assert_eq!(said, "two \"words\" \
                          on");
        anyhow::ensure!(told(&["here"]), { "not there" });
        let raw = r#"three "raw" words"#;
    "##;
    let found = literals(code);
    let found = found.iter().map(|Literal { text, calls }| {
        let calls = calls.iter().map(|call| format!("{} {}", call.name, call.argument));
        (text.as_str(), calls.collect::<Vec<_>>().join(", "))
    });
    let expected = [
        ("two \"words\" on", "assert_eq! 1"),
        ("here", "anyhow::ensure! 0, told 0,  0"),
        ("not there", "anyhow::ensure! 1"),
        ("three \"raw\" words", ""),
    ];
    assert_eq!(found.collect::<Vec<_>>(), expected.map(|(text, calls)| (text, calls.to_owned())));
}
