//! The parts of gRPC besides OTLP's messages: a codec for encoded messages, and the details of an error.

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use std::time::Duration;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// `google.rpc.Status`
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// `google.rpc.RetryInfo`
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`
#[derive(Clone, Copy, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// Returns the delay before a retry that the details of a status ask for (OTLP §OTLP/gRPC Throttling).
pub(super) fn retry_delay(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status.details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.clone()).ok()?.retry_delay?;
    let seconds = Duration::from_secs(delay.seconds.try_into().unwrap_or_default());
    Some(seconds.saturating_add(Duration::from_nanos(delay.nanos.try_into().unwrap_or_default())))
}

/// A codec for messages that are already encoded, and for responses that are decoded elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Encodes details of this kind, with a delay of 7 s.
    pub(in crate::export) fn details(kind: &str) -> Bytes {
        let info = RetryInfo { retry_delay: Some(Delay { seconds: 7, nanos: 0 }) };
        let type_url = format!("type.googleapis.com/google.rpc.{kind}");
        let detail = Detail { type_url, value: info.encode_to_vec().into() };
        RpcStatus { details: vec![detail] }.encode_to_vec().into()
    }

    #[test]
    fn a_delay_is_read_and_malformed_details_have_none() {
        assert_eq!(retry_delay(&details("RetryInfo")), Some(Duration::from_secs(7)));
        for garbage in [&b""[..], b"\xff\xff", b"<html>"] {
            assert_eq!(retry_delay(garbage), None);
        }
    }
}
