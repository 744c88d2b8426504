//! Translates notifications for clients of the other era. Subscriptions belong to a `subscriptions/listen` in the
//! modern era, and to the session in the legacy one, so only the subscription's stamp differs.

use super::keys;
use crate::jsonrpc::{Amendment, Edits, Message, rewrite::Changes, rewrite::edits_with};
use crate::trace_context::Trace;

/// Returns the edits that stamp a notification with the raw id of its `subscriptions/listen`, instead of any stamp
/// that it has (basic/patterns/subscriptions §Receiving Notifications).
pub fn stamp(frame: &[u8], message: &Message, listen_id: &[u8]) -> Edits {
    let add = format!("\"{}\":{}", keys::SUBSCRIPTION_ID, String::from_utf8_lossy(listen_id));
    change(frame, message, &add)
}

/// Returns the edits that remove the stamp, for a client without a `subscriptions/listen`.
pub fn unstamp(frame: &[u8], message: &Message) -> Edits {
    change(frame, message, "")
}

fn change(frame: &[u8], message: &Message, add: &str) -> Edits {
    let meta = message.params.as_ref().and_then(|params| params.meta.as_ref());
    let stamped = meta.is_some_and(|meta| meta.subscription_id.is_some());
    let drop: &[&str] = if stamped { &[keys::SUBSCRIPTION_ID] } else { &[] };
    let trace = Trace::default();
    edits_with(
        frame,
        message,
        &Changes { meta: Amendment { drop, add: add.as_bytes() }, ..Changes::new(&trace) },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::era::fixtures::{edited, scanned};

    #[test]
    fn stamps_are_added_and_removed() {
        let plain = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"u", "_meta":{ "k":1}}}"#;
        let (frame, message) = scanned(plain);
        let stamped = edited(&frame, &message, stamp(&frame, &message, b"\"7\""));
        let key = keys::SUBSCRIPTION_ID;
        assert_eq!(stamped, plain.replace("{ \"k", &format!("{{\"{key}\":\"7\", \"k")));
        let (frame, message) = scanned(&stamped);
        assert_eq!(edited(&frame, &message, unstamp(&frame, &message)), plain);
        let other = edited(&frame, &message, stamp(&frame, &message, b"8"));
        assert_eq!(other, stamped.replace("\"7\"", "8"));
    }

    #[test]
    fn a_stamp_is_put_into_existing_or_new_meta() {
        let meta = format!(r#"{{"_meta":{{"{}":1}}}}"#, keys::SUBSCRIPTION_ID);
        for (params, expected) in
            [("", format!(",\"params\":{meta}")), (",\"params\":{}", format!(",\"params\":{meta}"))]
        {
            let text = |params: &str| format!(r#"{{"jsonrpc":"2.0","method":"n"{params}}}"#);
            let (frame, message) = scanned(&text(params));
            assert_eq!(edited(&frame, &message, stamp(&frame, &message, b"1")), text(&expected));
            assert_eq!(edited(&frame, &message, unstamp(&frame, &message)), text(params));
        }
    }
}
