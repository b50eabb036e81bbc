//! `snapshot`: asked of a running instance.

use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value as Json;

use super::{own_url, print, unanswered};
use crate::config::{Config, Exit, SnapshotArgs};
use crate::serve::ask;

/// `snapshot`
pub async fn snapshot(config: &Config, SnapshotArgs { table, at }: &SnapshotArgs) -> Exit {
    let url = at.url.clone().unwrap_or_else(|| own_url(config.http.listen));
    let encoded = utf8_percent_encode(table, NON_ALPHANUMERIC);
    let url = format!("{}/v0/snapshot?table={encoded}", url.trim_end_matches('/'));
    match ask::<Json>(Method::POST, &url, at.token.as_ref(), super::LONG).await {
        Ok(_) => {
            print(&format!("{table} is being copied again"));
            Exit::Done
        }
        Err(error) => unanswered(&error),
    }
}
