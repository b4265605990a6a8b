//! Home of the criterion benches; the package has no other code.
