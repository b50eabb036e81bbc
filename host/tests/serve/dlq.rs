//! Who asks for dead letters in a way that means nothing is told so.

use crate::interface::{Interface, sentence};

#[test]
fn a_choice_of_letters_that_means_nothing_is_refused() {
    let interface = Interface::start("");
    let asked = [
        ("GET", "?limit=many", "`limit` is a whole number, 0 or more"),
        ("GET", "?plugins=mask", "there is no parameter `plugins` here"),
        ("POST", "/redrive", "say which letters: `id`, `plugin` or `table`, or else `all=true`"),
        ("POST", "/drop", "say which letters: `id`, `plugin` or `table`, or else `all=true`"),
    ];
    for (method, query, wanted) in asked {
        let response = interface.request(method, &format!("/v0/dlq{query}"), &[], b"");
        assert_eq!((response.status, &*sentence(&response)), (400, wanted), "{method} {query}");
    }
}

#[test]
fn before_a_leg_is_up_its_letters_cannot_be_reached() {
    let interface = Interface::start("");
    let response = interface.get("/v0/dlq");
    assert_eq!(response.status, 503);
    assert!(sentence(&response).contains("no dead letters can be reached yet"));
}
