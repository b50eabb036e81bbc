//! Writing PostgreSQL's array text.

/// Appends an element, quoted exactly where PostgreSQL quotes.
pub(super) fn write_element(out: &mut Vec<u8>, element: &[u8]) {
    let special = |byte: &u8| {
        matches!(
            byte,
            b'{' | b'}' | b'"' | b',' | b'\\' | b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C
        )
    };
    let null = element.eq_ignore_ascii_case(b"null");
    if !element.is_empty() && !null && !element.iter().any(special) {
        out.extend_from_slice(element);
        return;
    }
    out.push(b'"');
    for byte in element {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}
