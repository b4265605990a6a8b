//! LMTP server (RFC 2033) over the mailstow engine.
