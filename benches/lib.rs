//! Home of the criterion benches; the package has no code of its own.
