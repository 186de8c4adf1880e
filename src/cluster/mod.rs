//! Objects written to the API server.
