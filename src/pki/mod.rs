//! The certificate table, issuing, storing and inspecting; kubeconfigs.
