//! Tier 2: the runtime against a real API server.
