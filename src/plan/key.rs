//! What of a request is hashed where equal requests shall go to the same endpoint.

use crate::http::head::Request;

/// The key of the policy `hash`. A request that has none is hashed by its client's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Client,
    /// The path, without the query.
    Path,
    /// The first value of the field of this name.
    Field(Box<str>),
    /// The value of the cookie of this name.
    Cookie(Box<str>),
}

impl HashKey {
    /// What of `request` is hashed, whose client has the address `client`, as text. An empty value
    /// is none: it tells nobody apart.
    pub fn bytes<'a>(&self, request: &Request<'a>, client: &'a str) -> &'a [u8] {
        let found = match self {
            Self::Client => None,
            Self::Path => Some(request.path),
            Self::Field(name) => request.values(name).next(),
            Self::Cookie(name) => request.cookie(name),
        };
        let found = found.filter(|bytes| !bytes.is_empty());
        found.unwrap_or(client.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{FieldSpace, HeadLimits};

    #[track_caller]
    fn check(key: &HashKey, head: &str, expected: &str) {
        let limits = HeadLimits {
            bytes_max: 4096,
            fields_max: 10,
        };
        let head = format!("GET /a/b?c=d HTTP/1.1\r\nHost: a\r\n{head}\r\n");
        let mut space = FieldSpace::new();
        let request = Request::parse(head.as_bytes(), &limits, &mut space).unwrap();
        let bytes = key.bytes(&request, "192.0.2.1");
        assert_eq!(bytes, expected.as_bytes(), "{key:?} of {head:?}");
    }

    #[test]
    fn a_request_is_hashed_by_what_the_operator_names() {
        check(&HashKey::Client, "", "192.0.2.1");
        check(&HashKey::Path, "", "/a/b");
        let field = HashKey::Field("X-User".into());
        check(&field, "x-USER:  7\t\r\nX-User: 8\r\n", "7");
        check(&field, "X-User: 7, 8\r\n", "7, 8");
        let cookie = HashKey::Cookie("id".into());
        for (head, expected) in [
            ("Cookie: id=7\r\n", "7"),
            ("Cookie: a=b; id=7=8; id=9\r\n", "7=8"),
            ("Cookie: a=b;id=\"7\"\r\n", "\"7\""),
            ("Cookie: a=b\r\ncookie: id=7\r\n", "7"),
        ] {
            check(&cookie, head, expected);
        }
    }

    #[test]
    fn a_request_without_the_key_is_hashed_by_its_client() {
        let field = HashKey::Field("X-User".into());
        for head in ["", "X-Users: 7\r\n", "X-User: \r\nX-User: 8\r\n"] {
            check(&field, head, "192.0.2.1");
        }
        let cookie = HashKey::Cookie("id".into());
        for head in [
            "Cookie: ID=7; xid=7; id2=7; id; =id\r\n",
            "Cookie: id=\r\n",
            "",
        ] {
            check(&cookie, head, "192.0.2.1");
        }
    }
}
