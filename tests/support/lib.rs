//! What the tests of the whole system share: private servers, clients and mailbox readers.
