//! One statement, run on a thread of its own with a session of its own.
//!
//! A failed or running statement stays in the session that ran it, so every request gets a fresh one
//! (a millisecond) and nothing of one request leaks into another.

use std::io;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::answer::{self, Answer, Pieces, Title};
use super::block;
use super::header::Header;
use super::library::{Call, Connection, Library, Output, Stream, Summary};
use super::refusal::Refusal;
use super::request::{Request, form_fields};
use super::running::Running;
use super::statement::{self, Statement};
use super::upload::Upload;
use crate::sink::literal;

/// Longest statement, not counting the rows of an insert.
const LONGEST_STATEMENT: usize = 128 << 20;
/// An insert's rows begin within this many bytes.
const LONGEST_HEAD: usize = 1 << 20;
/// Pieces of an answer that wait for a slow client.
const WAITING_PIECES: usize = 2;
const DEFAULT_FORMAT: &str = "TabSeparated";

/// A request on its way to its answer.
pub(super) struct Job {
    pub(super) library: Library,
    pub(super) arguments: std::sync::Arc<[String]>,
    pub(super) request: Request,
    pub(super) upload: Upload,
    pub(super) running: Running,
    pub(super) title: Title,
    pub(super) reply: oneshot::Sender<Answer>,
}

impl Job {
    /// Runs the statement and answers. Blocks.
    pub(super) fn run(mut self) {
        let running = self.running.clone();
        if let Err(refusal) = self.answered() {
            self.send(answer::refused(&refusal, &self.title.query_id.clone()));
        }
        running.end();
    }

    fn send(&mut self, answer: Answer) {
        let (unused, _) = oneshot::channel();
        let reply = std::mem::replace(&mut self.reply, unused);
        // A client that has gone wants no answer.
        drop(reply.send(answer));
    }

    fn answered(&mut self) -> Result<(), Refusal> {
        let (text, statement) = self.statement()?;
        let mut connection =
            self.library.connect(&self.arguments).ok_or_else(Refusal::no_connection)?;
        self.prepare(&mut connection)?;
        match statement {
            Statement::Insert { format, .. } => self.insert(&mut connection, &text, format),
            Statement::InsertFromInput => Err(Refusal::from_input()),
            Statement::Other { format, selects } => {
                self.title.format = format
                    .or(self.request.default_format.take())
                    .unwrap_or_else(|| DEFAULT_FORMAT.to_owned());
                self.other(&mut connection, &text, selects)
            }
        }
    }

    /// The statement's text, without the rows of an insert: those stay in the upload.
    fn statement(&mut self) -> Result<(String, Statement), Refusal> {
        let mut text = self.text()?;
        let statement = statement::read(&text);
        if let Statement::Insert { head, rows, .. } = &statement {
            self.upload.put_back(text.split_off(*rows).into());
            text.truncate(*head);
        }
        let text = String::from_utf8(text).map_err(|_| Refusal::unreadable())?;
        Ok((text, statement))
    }

    /// As ClickHouse does it: the URL's part, a line end, the body. Of an insert whose rows are in
    /// the body only the beginning.
    fn text(&mut self) -> Result<Vec<u8>, Refusal> {
        if let Some(boundary) = self.request.form.take() {
            let body = self.upload.rest(Vec::new(), LONGEST_STATEMENT)?;
            for (name, value) in form_fields(&body, &boundary)? {
                self.request.set(name, value)?;
            }
            return Ok(std::mem::take(&mut self.request.query).into_bytes());
        }
        let mut text = std::mem::take(&mut self.request.query).into_bytes();
        if !text.is_empty() {
            text.push(b'\n');
            if matches!(statement::read(&text), Statement::Insert { .. }) {
                return Ok(text);
            }
        }
        while statement::may_be_insert(&text) && text.len() < LONGEST_HEAD {
            match self.upload.next()? {
                Some(bytes) => text.extend_from_slice(&bytes),
                None => return Ok(text),
            }
        }
        if let Statement::Insert { format: Some(_), .. } = statement::read(&text) {
            return Ok(text);
        }
        self.upload.rest(text, LONGEST_STATEMENT)
    }

    fn prepare(&mut self, connection: &mut Connection) -> Result<(), Refusal> {
        if let Some(database) = &self.request.database {
            let name = database.replace('\\', "\\\\").replace('`', "\\`");
            run(connection, &format!("USE `{name}`"))?;
        }
        let mut settings = vec![("implicit_select".to_owned(), "0".to_owned())];
        settings.append(&mut self.request.settings);
        settings.push(("log_comment".to_owned(), self.running.tag(&settings)));
        if self.request.read_only && settings.iter().all(|(name, _)| name != "readonly") {
            settings.push(("readonly".to_owned(), "2".to_owned()));
        }
        // After this one nothing can be set any more.
        let (last, first): (Vec<_>, Vec<_>) =
            settings.into_iter().partition(|(name, _)| name == "readonly");
        set(connection, &first)?;
        set(connection, &last)
    }

    fn insert(
        &mut self,
        connection: &mut Connection,
        head: &str,
        format: Option<String>,
    ) -> Result<(), Refusal> {
        let format = format.or(self.request.default_format.take());
        let format = format.unwrap_or_else(|| "Values".to_owned());
        one_statement(connection, &format!("{head} FORMAT {format}"))?;
        let call = Call { sql: head, format: &format, parameters: &self.request.parameters };
        let mut insert = connection.insert(&call).map_err(|error| Refusal::engine(&error))?;
        // An error of the upload drops the insert, which cancels it.
        while let Some(bytes) = self.upload.next()? {
            if insert.append(&bytes).is_err() {
                // The engine has more to say at the end.
                break;
            }
        }
        if self.running.is_cancelled() {
            return Err(Refusal::body_cut_short());
        }
        let summary = insert.finish().map_err(|error| Refusal::engine(&error))?;
        self.title.format = format;
        self.send_whole(summary, Bytes::new());
        Ok(())
    }

    fn other(
        &mut self,
        connection: &mut Connection,
        text: &str,
        selects: bool,
    ) -> Result<(), Refusal> {
        one_statement(connection, text)?;
        let format = self.title.format.clone();
        let parameters = std::mem::take(&mut self.request.parameters);
        let call = Call { sql: text, format: &format, parameters: &parameters };
        match Header::of_format(&format) {
            Some(header) if selects && !self.request.wait_end => {
                let stream = connection.stream(&call).map_err(|error| Refusal::engine(&error))?;
                self.send_pieces(stream, header)
            }
            _ => {
                let output = connection.query(&call).map_err(|error| Refusal::engine(&error))?;
                let summary = output.summary();
                self.send_whole(summary, Bytes::from_owner(output));
                Ok(())
            }
        }
    }

    fn send_whole(&mut self, summary: Summary, bytes: Bytes) {
        // What is held no query works on any more: nobody needs to cancel it.
        self.running.end();
        let body = answer::whole(self.packed(bytes));
        let answer = answer::given(&self.title, summary, body);
        self.send(answer);
    }

    /// An error before the first piece is an answer of its own; a later one ends the body.
    fn send_pieces(&mut self, mut stream: Stream<'_>, mut header: Header) -> Result<(), Refusal> {
        let first = next(&mut stream)?;
        let summary = first.as_ref().map(Output::summary).unwrap_or_default();
        let (pieces, receiver) = mpsc::channel(WAITING_PIECES);
        let body = Pieces { pieces: receiver, guard: self.running.guard() }.into_body();
        let answer = answer::given(&self.title, summary, body);
        self.send(answer);
        let mut piece = first;
        while let Some(output) = piece {
            let bytes = self.packed(header.strip(Bytes::from_owner(output)));
            if pieces.blocking_send(Ok(bytes)).is_err() {
                // Nobody listens any more; dropping the stream cancels the query.
                return Ok(());
            }
            piece = match next(&mut stream) {
                Ok(piece) => piece,
                Err(refusal) => {
                    self.break_off(&pieces, &refusal);
                    return Ok(());
                }
            };
        }
        Ok(())
    }

    /// The trailer for clients that know it, then an end that no client can take for a good one.
    fn break_off(&self, pieces: &mpsc::Sender<io::Result<Bytes>>, refusal: &Refusal) {
        let trailer = answer::exception_trailer(refusal, &self.title.exception_tag);
        let sent = pieces.blocking_send(Ok(self.packed(trailer)));
        if sent.is_ok() {
            drop(pieces.blocking_send(Err(io::Error::other(refusal.text.clone()))));
        }
    }

    fn packed(&self, bytes: Bytes) -> Bytes {
        if self.request.compress { block::pack(&bytes) } else { bytes }
    }
}

fn next(stream: &mut Stream<'_>) -> Result<Option<Output>, Refusal> {
    stream.next().map_err(|error| Refusal::engine(&error))
}

fn run(connection: &mut Connection, sql: &str) -> Result<(), Refusal> {
    let call = Call { sql, format: "Null", parameters: &[] };
    connection.query(&call).map(drop).map_err(|error| Refusal::engine(&error))
}

fn set(connection: &mut Connection, settings: &[(String, String)]) -> Result<(), Refusal> {
    if settings.is_empty() {
        return Ok(());
    }
    let all: Vec<String> =
        settings.iter().map(|(name, value)| format!("{name} = {}", literal(value))).collect();
    run(connection, &format!("SET {}", all.join(", ")))
}

/// What does not parse would pass for done, and a second statement would run unseen.
fn one_statement(connection: &mut Connection, sql: &str) -> Result<(), Refusal> {
    match connection.count_statements(sql) {
        1 => Ok(()),
        0 => Err(Refusal::unreadable()),
        _ => Err(Refusal::several()),
    }
}
