//! The engine's C interface, loaded at run time. All that is unsafe about it is in this file, but for
//! [the one function it is given](super::write).
//!
//! Three rules of the interface are kept by types: a connection serves one thread at a time (it is
//! `Send`, not `Sync`), and a result stream or insert stream borrows its connection for its whole
//! life, because the connection takes no other statement meanwhile.
#![expect(unsafe_code, reason = "the engine is a C library")]

use std::ffi::{CStr, CString, c_char, c_double, c_int, c_void};
use std::path::Path;
use std::ptr::NonNull;

use super::error::Error;

/// The oldest version whose rows can be streamed in.
const OLDEST: (u32, u32) = (26, 7);

type Handle = *mut c_void;
type Text = *const c_char;

/// Names and values of a statement's parameters, as the engine takes them.
type Parameters = (*const Text, *const usize, *const Text, *const usize, usize);

#[derive(Clone, Copy)]
struct Symbols {
    version: unsafe extern "C" fn() -> Text,
    set_signal_handlers_enabled: unsafe extern "C" fn(c_int),
    connect: unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut Handle,
    close: unsafe extern "C" fn(*mut Handle),
    classify: unsafe extern "C" fn(Handle, Text, usize, Text, usize, *mut Analysis) -> c_int,
    query: Statement,
    stream_query: Statement,
    stream_fetch: unsafe extern "C" fn(Handle, Handle) -> Handle,
    stream_cancel: unsafe extern "C" fn(Handle, Handle),
    insert: Statement,
    insert_append: unsafe extern "C" fn(Handle, *const c_void, usize) -> c_int,
    insert_done: unsafe extern "C" fn(Handle) -> Handle,
    insert_error: unsafe extern "C" fn(Handle) -> Text,
    insert_destroy: unsafe extern "C" fn(Handle),
    result_destroy: unsafe extern "C" fn(Handle),
    result_buffer: unsafe extern "C" fn(Handle) -> *mut c_char,
    result_length: unsafe extern "C" fn(Handle) -> usize,
    result_elapsed: unsafe extern "C" fn(Handle) -> c_double,
    result_rows: unsafe extern "C" fn(Handle) -> u64,
    result_rows_read: unsafe extern "C" fn(Handle) -> u64,
    result_bytes_read: unsafe extern "C" fn(Handle) -> u64,
    result_rows_written: unsafe extern "C" fn(Handle) -> u64,
    result_bytes_written: unsafe extern "C" fn(Handle) -> u64,
    result_error: unsafe extern "C" fn(Handle) -> Text,
}

type Statement = unsafe extern "C" fn(
    Handle,
    Text,
    usize,
    Text,
    usize,
    *const Text,
    *const usize,
    *const Text,
    *const usize,
    usize,
) -> Handle;

/// What the engine's parser says about a statement.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Analysis {
    struct_size: u32,
    statement_count: u32,
    flags: u32,
    query_class: u32,
}

/// The engine's library, loaded. It stays loaded until the process ends.
#[derive(Clone, Copy)]
pub(super) struct Library {
    symbols: Symbols,
}

impl Library {
    /// Loads the library and leaves the process's signal handlers alone.
    pub(super) fn load(path: &Path) -> Result<Library, Error> {
        check_processor()?;
        let load = |source| Error::Load { path: path.to_owned(), source };
        // SAFETY: the library's initialisers have no demands beyond the processor checked above.
        let library = unsafe { libloading::Library::new(path) }.map_err(load)?;
        // SAFETY: the signatures are those of the C interface, whose version is checked below.
        let symbols = unsafe { symbols(&library) }.map_err(load)?;
        // Its threads and exit handlers run until the process ends: never unload.
        std::mem::forget(library);
        // SAFETY: returns a static text; the other only sets a flag, before any connection.
        let version = unsafe {
            (symbols.set_signal_handlers_enabled)(0);
            text((symbols.version)())
        };
        let version = version.unwrap_or_default();
        if parsed(&version).is_none_or(|found| found < OLDEST) {
            return Err(Error::Version { path: path.to_owned(), version });
        }
        Ok(Library { symbols })
    }

    /// Opens a connection. The first one starts the engine with the server settings among the
    /// arguments. The engine gives no reason for a refusal but prints it to standard error.
    pub(super) fn connect(&self, arguments: &[String]) -> Option<Connection> {
        let owned: Vec<CString> = std::iter::once("clickhouse")
            .chain(arguments.iter().map(String::as_str))
            .map(CString::new)
            .collect::<Result<_, _>>()
            .ok()?;
        let mut pointers: Vec<*mut c_char> =
            owned.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
        let count = c_int::try_from(pointers.len()).ok()?;
        // SAFETY: `count` texts that live until the call returns; the engine copies them.
        let connection = unsafe { (self.symbols.connect)(count, pointers.as_mut_ptr()) };
        NonNull::new(connection).map(|handle| Connection { symbols: self.symbols, handle })
    }
}

fn check_processor() -> Result<(), Error> {
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        return Err(Error::Platform);
    }
    #[cfg(target_arch = "x86_64")]
    if !(std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("bmi2")) {
        return Err(Error::Processor);
    }
    Ok(())
}

fn parsed(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

/// # Safety
/// The library's functions must have the signatures of [`Symbols`].
unsafe fn symbols(library: &libloading::Library) -> Result<Symbols, libloading::Error> {
    macro_rules! get {
        ($name:literal) => {
            // SAFETY: the caller answers for the signatures.
            *unsafe { library.get(concat!($name, "\0").as_bytes()) }?
        };
    }
    Ok(Symbols {
        version: get!("chdb_version"),
        set_signal_handlers_enabled: get!("chdb_set_signal_handlers_enabled"),
        connect: get!("chdb_connect"),
        close: get!("chdb_close_conn"),
        classify: get!("chdb_classify_query_n"),
        query: get!("chdb_query_with_params_n"),
        stream_query: get!("chdb_stream_query_with_params_n"),
        stream_fetch: get!("chdb_stream_fetch_result"),
        stream_cancel: get!("chdb_stream_cancel_query"),
        insert: get!("chdb_stream_insert_with_params_n"),
        insert_append: get!("chdb_stream_append"),
        insert_done: get!("chdb_stream_done"),
        insert_error: get!("chdb_stream_insert_error"),
        insert_destroy: get!("chdb_destroy_insert_stream"),
        result_destroy: get!("chdb_destroy_query_result"),
        result_buffer: get!("chdb_result_buffer"),
        result_length: get!("chdb_result_length"),
        result_elapsed: get!("chdb_result_elapsed"),
        result_rows: get!("chdb_result_rows_read"),
        result_rows_read: get!("chdb_result_storage_rows_read"),
        result_bytes_read: get!("chdb_result_storage_bytes_read"),
        result_rows_written: get!("chdb_result_rows_written"),
        result_bytes_written: get!("chdb_result_bytes_written"),
        result_error: get!("chdb_result_error"),
    })
}

/// # Safety
/// `pointer` is null or a text that ends with NUL and lives during the call.
unsafe fn text(pointer: Text) -> Option<String> {
    let pointer = NonNull::new(pointer.cast_mut())?;
    // SAFETY: the caller's promise.
    Some(unsafe { CStr::from_ptr(pointer.as_ptr()) }.to_string_lossy().into_owned())
}

/// A statement with its output (or, for an insert, input) format and its parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) sql: &'a str,
    pub(super) format: &'a str,
    pub(super) parameters: &'a [(String, String)],
}

impl Call<'_> {
    fn run(&self, statement: Statement, connection: Handle) -> Handle {
        let names: Vec<Text> =
            self.parameters.iter().map(|(name, _)| name.as_ptr().cast()).collect();
        let name_lengths: Vec<usize> = self.parameters.iter().map(|(name, _)| name.len()).collect();
        let values: Vec<Text> =
            self.parameters.iter().map(|(_, value)| value.as_ptr().cast()).collect();
        let value_lengths: Vec<usize> =
            self.parameters.iter().map(|(_, value)| value.len()).collect();
        let parameters: Parameters = (
            names.as_ptr(),
            name_lengths.as_ptr(),
            values.as_ptr(),
            value_lengths.as_ptr(),
            self.parameters.len(),
        );
        // SAFETY: `connection` is open and used by this thread alone; every pointer comes with its
        // length and lives until the call returns.
        unsafe {
            statement(
                connection,
                self.sql.as_ptr().cast(),
                self.sql.len(),
                self.format.as_ptr().cast(),
                self.format.len(),
                parameters.0,
                parameters.1,
                parameters.2,
                parameters.3,
                parameters.4,
            )
        }
    }
}

/// One session. Dropping it closes it.
pub(super) struct Connection {
    symbols: Symbols,
    handle: NonNull<Handle>,
}

// SAFETY: the engine binds nothing of a connection to a thread; it only wants one at a time.
unsafe impl Send for Connection {}

impl Connection {
    fn handle(&self) -> Handle {
        // SAFETY: the engine's pointer to the connection stays valid until it is closed on drop.
        unsafe { *self.handle.as_ptr() }
    }

    /// How many statements the engine's parser finds in the text; 0 if it does not parse.
    pub(super) fn count_statements(&mut self, sql: &str) -> u32 {
        let size = u32::try_from(size_of::<Analysis>()).expect("a small struct");
        let mut analysis = Analysis { struct_size: size, ..Analysis::default() };
        let none = std::ptr::null();
        // SAFETY: the text comes with its length, and the report with its size.
        let state = unsafe {
            let (sql, length) = (sql.as_ptr().cast(), sql.len());
            (self.symbols.classify)(self.handle(), sql, length, none, 0, &raw mut analysis)
        };
        if state == 0 { analysis.statement_count } else { 0 }
    }

    /// Runs a statement to its end and holds its whole output. Never for a text that carries rows:
    /// the engine would look for further statements in them.
    pub(super) fn query(&mut self, call: &Call<'_>) -> Result<Output, String> {
        let handle = call.run(self.symbols.query, self.handle());
        Output::new(self.symbols, handle).into_result()
    }

    /// Starts a query whose output is fetched piece by piece.
    pub(super) fn stream(&mut self, call: &Call<'_>) -> Result<Stream<'_>, String> {
        let handle = call.run(self.symbols.stream_query, self.handle());
        let start = Output::new(self.symbols, handle).into_result()?;
        Ok(Stream { connection: self, start, ended: false })
    }

    /// Starts an insert, a statement without `FORMAT` and without rows.
    pub(super) fn insert(&mut self, call: &Call<'_>) -> Result<Insert<'_>, String> {
        let handle = call.run(self.symbols.insert, self.handle());
        let insert = Insert { connection: self, handle };
        match insert.error() {
            Some(error) => Err(error),
            None => Ok(insert),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: open until now, and nothing borrows it any more.
        unsafe { (self.symbols.close)(self.handle.as_ptr()) }
    }
}

/// What a statement put out. It is as large as the answer and costs no copy.
pub(super) struct Output {
    symbols: Symbols,
    handle: Option<NonNull<c_void>>,
}

// SAFETY: a result is plain memory.
unsafe impl Send for Output {}

/// What a statement has done so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Summary {
    pub(super) elapsed_seconds: f64,
    pub(super) result_rows: u64,
    pub(super) rows_read: u64,
    pub(super) bytes_read: u64,
    pub(super) rows_written: u64,
    pub(super) bytes_written: u64,
}

impl Output {
    fn new(symbols: Symbols, handle: Handle) -> Output {
        Output { symbols, handle: NonNull::new(handle) }
    }

    fn into_result(self) -> Result<Output, String> {
        let Some(handle) = self.handle else {
            return Err("the engine gave no result; its reason may be in the log above".to_owned());
        };
        // SAFETY: a live result, whose text lives as long.
        match unsafe { text((self.symbols.result_error)(handle.as_ptr())) } {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    pub(super) fn summary(&self) -> Summary {
        let (Some(handle), symbols) = (self.handle, &self.symbols) else {
            return Summary::default();
        };
        let handle = handle.as_ptr();
        // SAFETY: a live result.
        unsafe {
            Summary {
                elapsed_seconds: (symbols.result_elapsed)(handle),
                result_rows: (symbols.result_rows)(handle),
                rows_read: (symbols.result_rows_read)(handle),
                bytes_read: (symbols.result_bytes_read)(handle),
                rows_written: (symbols.result_rows_written)(handle),
                bytes_written: (symbols.result_bytes_written)(handle),
            }
        }
    }
}

impl AsRef<[u8]> for Output {
    fn as_ref(&self) -> &[u8] {
        let Some(handle) = self.handle else { return &[] };
        // SAFETY: the buffer has that length and lives, unchanged, as long as the result.
        unsafe {
            let length = (self.symbols.result_length)(handle.as_ptr());
            let buffer = (self.symbols.result_buffer)(handle.as_ptr());
            if buffer.is_null() || length == 0 {
                return &[];
            }
            std::slice::from_raw_parts(buffer.cast(), length)
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(handle) = self.handle {
            // SAFETY: live until now, destroyed once.
            unsafe { (self.symbols.result_destroy)(handle.as_ptr()) }
        }
    }
}

/// A query whose output is being fetched. Dropping it before the end cancels the query.
pub(super) struct Stream<'a> {
    connection: &'a mut Connection,
    start: Output,
    ended: bool,
}

impl Stream<'_> {
    /// The next piece, not empty; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Output>, String> {
        let Some(start) = self.start.handle else { return Ok(None) };
        let symbols = self.connection.symbols;
        // SAFETY: a live stream of this connection, which it borrows.
        let handle = unsafe { (symbols.stream_fetch)(self.connection.handle(), start.as_ptr()) };
        let piece = Output::new(symbols, handle).into_result();
        self.ended = piece.as_ref().map_or(true, |piece| piece.as_ref().is_empty());
        Ok(Some(piece?).filter(|piece| !piece.as_ref().is_empty()))
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        if let (false, Some(start)) = (self.ended, self.start.handle) {
            let connection = self.connection.handle();
            // SAFETY: a live stream of this connection; `start` is destroyed after this.
            unsafe { (self.connection.symbols.stream_cancel)(connection, start.as_ptr()) }
        }
    }
}

/// An insert that takes rows. Dropping it before [`finish`](Self::finish) cancels it: what makes no
/// whole block yet is not stored.
pub(super) struct Insert<'a> {
    connection: &'a mut Connection,
    handle: Handle,
}

impl Insert<'_> {
    fn error(&self) -> Option<String> {
        // SAFETY: a live insert, whose text lives as long.
        unsafe { text((self.connection.symbols.insert_error)(self.handle)) }
    }

    /// Hands over bytes of the insert's format, cut anywhere. Waits while the engine is behind.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (data, length) = (bytes.as_ptr().cast(), bytes.len());
        // SAFETY: a live insert; the engine copies the bytes.
        match unsafe { (self.connection.symbols.insert_append)(self.handle, data, length) } {
            0 => Ok(()),
            _ => Err(self.error().unwrap_or_else(|| "the insert has ended".to_owned())),
        }
    }

    /// Says that all rows have come, and waits until they are stored.
    pub(super) fn finish(self) -> Result<Summary, String> {
        let symbols = self.connection.symbols;
        // SAFETY: a live insert; it is destroyed on drop, after its result.
        let result = Output::new(symbols, unsafe { (symbols.insert_done)(self.handle) });
        Ok(result.into_result()?.summary())
    }
}

impl Drop for Insert<'_> {
    fn drop(&mut self) {
        // SAFETY: live until now, destroyed once; the engine cancels what was not finished.
        unsafe { (self.connection.symbols.insert_destroy)(self.handle) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_compared_by_its_numbers() {
        assert_eq!(parsed("26.7.3"), Some((26, 7)));
        assert!(parsed("26.10.0").unwrap() > OLDEST);
        assert!(parsed("26.5.3").unwrap() < OLDEST);
        assert_eq!(parsed("soon"), None);
    }
}
