//! The C library of mailstow: delivery and recipient look-up in process.
