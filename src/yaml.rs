//! Documents in and out, strict, as Kubernetes reads them. The only module that knows a YAML crate.
