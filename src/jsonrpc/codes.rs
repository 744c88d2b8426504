//! Error codes of JSON-RPC 2.0, and those that MCP adds.

/// The text is not JSON.
pub const PARSE_ERROR: i64 = -32700;
/// The text is JSON, but not a JSON-RPC message.
pub const INVALID_REQUEST: i64 = -32600;
/// The receiver does not know the method.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// The method is known, its parameters are wrong.
pub const INVALID_PARAMS: i64 = -32602;
/// The receiver failed.
pub const INTERNAL_ERROR: i64 = -32603;

/// proxyrunner's own, outside the range that JSON-RPC reserves: the client cancelled the request.
pub const REQUEST_CANCELLED: i64 = -32800;

/// A rate limit is exceeded. A positive code, as ToolHive's; MCP and JSON-RPC reserve negative ones.
pub const RATE_LIMITED: i64 = 429;

/// Legacy: the `Mcp-Session-Id` is unknown. No revision names this code; every SDK sends it.
pub const SESSION_NOT_FOUND: i64 = -32001;
/// Legacy: `resources/read` of a URI that does not exist. Later revisions use [`INVALID_PARAMS`].
pub const RESOURCE_NOT_FOUND: i64 = -32002;

/// Modern: an HTTP header contradicts the body.
pub const HEADER_MISMATCH: i64 = -32020;
/// Modern: the request needs a capability that its client did not declare.
pub const MISSING_CAPABILITY: i64 = -32021;
/// Modern: the protocol version is not served here.
pub const UNSUPPORTED_VERSION: i64 = -32022;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_specified_values() {
        let json_rpc = [PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR];
        assert_eq!(json_rpc, [-32700, -32600, -32601, -32602, -32603]);
        assert_eq!([REQUEST_CANCELLED, SESSION_NOT_FOUND, RESOURCE_NOT_FOUND], [-32800, -32001, -32002]);
        assert_eq!([HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION], [-32020, -32021, -32022]);
    }
}
