//! tcptrace: a tracer of TCP state transitions.
