//! The messages of pgoutput, protocol version 1, parsed in place and sans-I/O.
//!
//! Source: PostgreSQL, "Logical Replication Message Formats". Every length is checked against the
//! bytes at hand, so no input can panic or read past the frame.

use crate::position::Lsn;
use crate::table::ReplicaIdentity;

/// The frame is not a message this decoder knows. It names what was wrong, never the bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The message ended inside a field.
    #[error("message `{kind}` ends inside its {field}")]
    Truncated {
        /// The message's type byte.
        kind: char,
        /// The field that is not whole.
        field: &'static str,
    },
    /// The message goes on after its last field.
    #[error("message `{kind}` has {extra} bytes too many")]
    TooLong {
        /// The message's type byte.
        kind: char,
        /// Bytes left over.
        extra: usize,
    },
    /// A type byte outside protocol version 1.
    #[error("unknown message type 0x{0:02x}")]
    UnknownMessage(u8),
    /// A byte that marks a tuple or a cell was none of the known ones.
    #[error("message `{kind}` holds the unknown {what} 0x{byte:02x}")]
    UnknownMark {
        /// The message's type byte.
        kind: char,
        /// What the byte should have marked.
        what: &'static str,
        /// The byte.
        byte: u8,
    },
    /// A name was not UTF-8.
    #[error("message `{kind}` holds a {field} that is not UTF-8")]
    NotUtf8 {
        /// The message's type byte.
        kind: char,
        /// The field.
        field: &'static str,
    },
    /// An empty frame.
    #[error("empty message")]
    Empty,
}

/// One message. Tuples stay unparsed: see [`Tuple::cells`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction begins; all its changes follow, then its commit.
    Begin {
        /// LSN of the commit record.
        commit: Lsn,
        /// Microseconds since the Unix epoch.
        committed_at: i64,
        /// Transaction id.
        xid: u32,
    },
    /// The transaction ends.
    Commit {
        /// LSN of the commit record.
        commit: Lsn,
        /// Where the next record begins: what may be confirmed once the transaction is durable.
        end: Lsn,
    },
    /// Describes a table before its first change, and again after its schema changed.
    Relation(Relation),
    /// A row was inserted.
    Insert {
        /// The table's object id.
        relation: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// A row was updated.
    Update {
        /// The table's object id.
        relation: u32,
        /// The old row, if the key changed or the identity is full.
        old: Option<OldTuple<'a>>,
        /// The new row.
        new: Tuple<'a>,
    },
    /// A row was deleted.
    Delete {
        /// The table's object id.
        relation: u32,
        /// What the log holds of it.
        old: OldTuple<'a>,
    },
    /// Tables were truncated together.
    Truncate {
        /// Their object ids.
        relations: Vec<u32>,
    },
    /// Where the transaction came from, a type's name, a logical message: of no use downstream.
    Ignored,
}

/// A table as the stream describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Object id.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Table.
    pub name: String,
    /// Identity setting.
    pub identity: ReplicaIdentity,
    /// Columns as sent in tuples.
    pub columns: Vec<RelationColumn>,
}

/// A column as the stream describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationColumn {
    /// Whether it is part of the replica identity.
    pub identity: bool,
    /// Name.
    pub name: String,
    /// Type's object id.
    pub type_oid: u32,
    /// Type modifier, -1 for none.
    pub type_modifier: i32,
}

/// What an old tuple holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldTuple<'a> {
    /// The identity's columns only.
    Key(Tuple<'a>),
    /// All columns.
    Full(Tuple<'a>),
}

/// The cells of a row, still as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple<'a> {
    /// Number of columns.
    pub columns: u16,
    /// From the first cell to the end of the frame.
    bytes: &'a [u8],
}

/// One cell of a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TupleCell<'a> {
    /// NULL.
    Null,
    /// Unchanged TOAST.
    Unchanged,
    /// Text form.
    Text(&'a [u8]),
}

/// Microseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
pub const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

impl<'a> Message<'a> {
    /// Parses one whole message.
    ///
    /// # Errors
    /// [`Malformed`] if the frame is not exactly one message.
    pub fn parse(frame: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let (&kind, rest) = frame.split_first().ok_or(Malformed::Empty)?;
        let mut fields = Fields { kind: char::from(kind), rest };
        let message = match kind {
            b'B' => Message::Begin {
                commit: Lsn(fields.u64("commit LSN")?),
                committed_at: fields.timestamp()?,
                xid: fields.u32("transaction id")?,
            },
            b'C' => fields.commit()?,
            b'R' => Message::Relation(fields.relation()?),
            b'I' => fields.insert()?,
            b'U' => fields.update()?,
            b'D' => Message::Delete { relation: fields.u32("relation")?, old: fields.old_tuple()? },
            b'T' => Message::Truncate { relations: fields.truncated()? },
            b'O' | b'Y' | b'M' => return Ok(Message::Ignored),
            other => return Err(Malformed::UnknownMessage(other)),
        };
        fields.finish()?;
        Ok(message)
    }
}

impl<'a> Tuple<'a> {
    /// The cells in column order. The tuple was checked when the message was parsed.
    pub fn cells(self) -> impl Iterator<Item = TupleCell<'a>> {
        let mut fields = Fields { kind: 't', rest: self.bytes };
        (0..self.columns).map_while(move |_| fields.cell().ok())
    }
}

/// A cursor over a message's fields.
struct Fields<'a> {
    kind: char,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let truncated = Malformed::Truncated { kind: self.kind, field };
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let truncated = Malformed::Truncated { kind: self.kind, field };
        let (taken, rest) = self.rest.split_first_chunk().ok_or(truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    fn timestamp(&mut self) -> Result<i64, Malformed> {
        let micros = i64::from_be_bytes(self.array("commit time")?);
        Ok(micros.saturating_add(POSTGRES_EPOCH_MICROS))
    }

    fn string(&mut self, field: &'static str) -> Result<String, Malformed> {
        let end =
            memchr::memchr(0, self.rest).ok_or(Malformed::Truncated { kind: self.kind, field })?;
        let bytes = self.take(end, field)?;
        self.take(1, field)?;
        let text = std::str::from_utf8(bytes);
        text.map(str::to_owned).map_err(|_| Malformed::NotUtf8 { kind: self.kind, field })
    }

    fn commit(&mut self) -> Result<Message<'a>, Malformed> {
        self.u8("flags")?;
        let commit = Lsn(self.u64("commit LSN")?);
        let end = Lsn(self.u64("end LSN")?);
        self.timestamp()?;
        Ok(Message::Commit { commit, end })
    }

    fn relation(&mut self) -> Result<Relation, Malformed> {
        let oid = self.u32("relation")?;
        let schema = self.string("schema name")?;
        // The stream writes pg_catalog as the empty string.
        let schema = if schema.is_empty() { "pg_catalog".to_owned() } else { schema };
        let name = self.string("table name")?;
        let identity = match self.u8("replica identity")? {
            b'd' => ReplicaIdentity::Default,
            b'n' => ReplicaIdentity::Nothing,
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            byte => return Err(self.unknown("replica identity", byte)),
        };
        let count = self.u16("column count")?;
        let mut columns = Vec::with_capacity(usize::from(count).min(1_600));
        for _ in 0..count {
            columns.push(RelationColumn {
                identity: self.u8("column flags")? & 1 == 1,
                name: self.string("column name")?,
                type_oid: self.u32("column type")?,
                type_modifier: i32::from_be_bytes(self.array("column type modifier")?),
            });
        }
        Ok(Relation { oid, schema, name, identity, columns })
    }

    fn insert(&mut self) -> Result<Message<'a>, Malformed> {
        let relation = self.u32("relation")?;
        match self.u8("tuple mark")? {
            b'N' => Ok(Message::Insert { relation, new: self.tuple()? }),
            byte => Err(self.unknown("tuple mark", byte)),
        }
    }

    fn update(&mut self) -> Result<Message<'a>, Malformed> {
        let relation = self.u32("relation")?;
        let old = match self.rest.first() {
            Some(b'N') => None,
            _ => Some(self.old_tuple()?),
        };
        match self.u8("tuple mark")? {
            b'N' => Ok(Message::Update { relation, old, new: self.tuple()? }),
            byte => Err(self.unknown("tuple mark", byte)),
        }
    }

    fn old_tuple(&mut self) -> Result<OldTuple<'a>, Malformed> {
        match self.u8("tuple mark")? {
            b'K' => Ok(OldTuple::Key(self.tuple()?)),
            b'O' => Ok(OldTuple::Full(self.tuple()?)),
            byte => Err(self.unknown("tuple mark", byte)),
        }
    }

    /// Walks the cells once, so that [`Tuple::cells`] cannot fail later.
    fn tuple(&mut self) -> Result<Tuple<'a>, Malformed> {
        let columns = self.u16("column count")?;
        let bytes = self.rest;
        for _ in 0..columns {
            self.cell()?;
        }
        Ok(Tuple { columns, bytes })
    }

    #[inline]
    fn cell(&mut self) -> Result<TupleCell<'a>, Malformed> {
        match self.u8("cell")? {
            b't' => {
                let len = self.u32("cell length")?;
                Ok(TupleCell::Text(self.take(len as usize, "cell")?))
            }
            b'n' => Ok(TupleCell::Null),
            b'u' => Ok(TupleCell::Unchanged),
            byte => Err(self.unknown("cell mark", byte)),
        }
    }

    fn truncated(&mut self) -> Result<Vec<u32>, Malformed> {
        let count = self.u32("relation count")? as usize;
        self.u8("options")?;
        // At most one id per four bytes: a corrupt count must not reserve memory.
        let mut relations = Vec::with_capacity(count.min(self.rest.len() / 4));
        for _ in 0..count {
            relations.push(self.u32("relation")?);
        }
        Ok(relations)
    }

    fn unknown(&self, what: &'static str, byte: u8) -> Malformed {
        Malformed::UnknownMark { kind: self.kind, what, byte }
    }

    fn finish(self) -> Result<(), Malformed> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(Malformed::TooLong { kind: self.kind, extra }),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_cell(text: &[u8]) -> Vec<u8> {
        let mut bytes = vec![b't'];
        bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        bytes.extend(text);
        bytes
    }

    fn tuple(cells: &[Option<&[u8]>]) -> Vec<u8> {
        let mut bytes = u16::try_from(cells.len()).unwrap().to_be_bytes().to_vec();
        for cell in cells {
            bytes.extend(cell.map_or_else(|| vec![b'n'], text_cell));
        }
        bytes
    }

    pub(crate) fn insert(relation: u32, cells: &[Option<&[u8]>]) -> Vec<u8> {
        [&b"I"[..], &relation.to_be_bytes(), b"N", &tuple(cells)].concat()
    }

    #[test]
    fn an_insert_gives_its_cells_in_order() {
        let frame = insert(7, &[Some(b"1"), None, Some(b"")]);
        let Message::Insert { relation, new } = Message::parse(&frame).unwrap() else {
            panic!("not an insert");
        };
        assert_eq!(relation, 7);
        let cells: Vec<_> = new.cells().collect();
        assert_eq!(cells, [TupleCell::Text(b"1"), TupleCell::Null, TupleCell::Text(b"")]);
    }

    #[test]
    fn an_update_tells_key_old_rows_from_full_ones() {
        let update = |mark: &[u8]| {
            let old = tuple(&[Some(b"1")]);
            [b"U\0\0\0\x07", mark, &old, b"N", &tuple(&[Some(b"2")])].concat()
        };
        let (key, full) = (update(b"K"), update(b"O"));
        let old = |frame| match Message::parse(frame) {
            Ok(Message::Update { old, .. }) => old,
            other => panic!("{other:?}"),
        };
        assert!(matches!(old(&key), Some(OldTuple::Key(_))));
        assert!(matches!(old(&full), Some(OldTuple::Full(_))));
    }

    #[test]
    fn an_unchanged_toast_cell_is_not_null() {
        let frame = b"I\0\0\0\x07N\0\x01u";
        let Ok(Message::Insert { new, .. }) = Message::parse(frame) else { panic!("not parsed") };
        assert_eq!(new.cells().collect::<Vec<_>>(), [TupleCell::Unchanged]);
    }

    #[test]
    fn a_frame_cut_anywhere_is_an_error() {
        let frame = insert(7, &[Some(b"abc"), None, Some(b"defg")]);
        for end in 0..frame.len() {
            assert!(Message::parse(&frame[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn bytes_after_the_last_field_are_an_error() {
        let mut frame = insert(7, &[Some(b"abc")]);
        frame.push(0);
        assert_eq!(Message::parse(&frame), Err(Malformed::TooLong { kind: 'I', extra: 1 }));
    }

    #[test]
    fn a_huge_count_reserves_no_memory() {
        let frame = b"T\xff\xff\xff\xff\0\0\0\0\x01";
        assert!(matches!(Message::parse(frame), Err(Malformed::Truncated { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(frame in prop::collection::vec(any::<u8>(), 0..200)) {
            let _unused = Message::parse(&frame);
        }

        #[test]
        fn no_corrupt_byte_makes_the_parser_panic(
            cells in prop::collection::vec(
                prop::option::of(prop::collection::vec(any::<u8>(), 0..20)), 0..12),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let cells: Vec<_> = cells.iter().map(Option::as_deref).collect();
            let mut frame = insert(1, &cells);
            let at = at.index(frame.len());
            frame[at] = byte;
            if let Ok(Message::Insert { new, .. }) = Message::parse(&frame) {
                prop_assert_eq!(new.cells().count(), usize::from(new.columns));
            }
        }

        #[test]
        fn every_tuple_comes_back_as_it_was_written(
            cells in prop::collection::vec(
                prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), 0..30),
        ) {
            let cells: Vec<_> = cells.iter().map(Option::as_deref).collect();
            let frame = insert(9, &cells);
            let Ok(Message::Insert { new, .. }) = Message::parse(&frame) else {
                return Err(TestCaseError::fail("not an insert"));
            };
            let read: Vec<_> = new.cells().map(|cell| match cell {
                TupleCell::Text(text) => Some(text),
                _ => None,
            }).collect();
            prop_assert_eq!(read, cells);
        }
    }

    #[test]
    fn what_is_no_message_is_said_in_a_sentence() {
        let too_long = [&b"C"[..], &[0; 26]].concat();
        for (frame, said) in [
            (&b""[..], "empty message"),
            (b"?", "unknown message type 0x3f"),
            (b"C\0", "message `C` ends inside its commit LSN"),
            (b"R\0\0\0\x01\xff\0", "message `R` holds a schema name that is not UTF-8"),
            (&too_long, "message `C` has 1 bytes too many"),
        ] {
            let error = Message::parse(frame).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
