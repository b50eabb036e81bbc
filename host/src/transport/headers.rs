//! A message's headers. Their names may be any bytes, and the client library's own way to them panics at those that are no
//! text.
#![expect(unsafe_code, reason = "the client is a C library")]

use std::ffi::CStr;
use std::marker::PhantomData;
use std::{ptr, slice};

use rdkafka::bindings::{
    rd_kafka_header_get_all, rd_kafka_headers_t, rd_kafka_message_headers, rd_kafka_resp_err_t,
};
use rdkafka::message::BorrowedMessage;

/// The names and values of a message's headers, in their order.
pub(super) struct Headers<'a> {
    /// Null: there are none.
    list: *const rd_kafka_headers_t,
    next: usize,
    /// What the list belongs to.
    owner: PhantomData<&'a ()>,
}

impl<'a> Headers<'a> {
    pub(super) fn of(message: &'a BorrowedMessage<'_>) -> Headers<'a> {
        let mut list = ptr::null_mut();
        // SAFETY: the message lives. It keeps the list as long as it does, and without one the pointer stays as it is.
        unsafe { rd_kafka_message_headers(message.ptr(), &raw mut list) };
        Headers { list, next: 0, owner: PhantomData }
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.list.is_null() {
            return None;
        }
        let (mut name, mut value, mut bytes) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the owner keeps the list.
        let found = unsafe {
            let (name, value) = (&raw mut name, &raw mut value);
            rd_kafka_header_get_all(self.list, self.next, name, value, &raw mut bytes)
        };
        if found != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        self.next += 1;
        // SAFETY: a name ends with a zero; like the value it is the list's.
        let name = unsafe { CStr::from_ptr(name) }.to_bytes();
        let value = (!value.is_null())
            // SAFETY: that many bytes are there.
            .then(|| unsafe { slice::from_raw_parts(value.cast::<u8>(), bytes) });
        Some((name, value))
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::bindings::{rd_kafka_header_add, rd_kafka_headers_destroy, rd_kafka_headers_new};

    use super::*;

    #[test]
    fn names_that_are_no_text_are_names_too() {
        let given: [(&[u8], Option<&[u8]>); 4] =
            [(b"\xff\xfe", Some(b"1")), (b"", Some(b"")), (b"a", None), (b"a", Some(b"\0"))];
        // SAFETY: the list is gone only after all was compared.
        unsafe {
            let list = rd_kafka_headers_new(given.len());
            for (name, value) in given {
                let bytes = value.map_or(0, <[u8]>::len).cast_signed();
                let value = value.map_or(ptr::null(), <[u8]>::as_ptr);
                let size = name.len().cast_signed();
                rd_kafka_header_add(list, name.as_ptr().cast(), size, value.cast(), bytes);
            }
            let headers = Headers { list, next: 0, owner: PhantomData };
            assert_eq!(headers.collect::<Vec<_>>(), given);
            rd_kafka_headers_destroy(list);
        }
        let none = Headers { list: ptr::null(), next: 0, owner: PhantomData };
        assert_eq!(none.count(), 0);
    }
}
