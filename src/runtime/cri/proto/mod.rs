//! Messages of `k8s.io/cri-api`'s `api.proto`, version 1, and of containerd's own API, generated from the files beside this one.

#[rustfmt::skip]
#[allow(dead_code, missing_docs, clippy::all, reason = "generated from src/runtime/cri/proto/cri.proto")]
mod cri;
#[rustfmt::skip]
#[allow(dead_code, missing_docs, clippy::all, reason = "generated from src/runtime/cri/proto/containerd.proto")]
pub mod containerd;

pub use cri::*;

use crate::runtime::Credential;

impl ByImage {
    /// The image of a reference or id.
    pub fn of(reference: &str) -> Self {
        Self { image: Some(ImageSpec { image: reference.to_owned(), ..ImageSpec::default() }) }
    }
}

impl PullImageRequest {
    /// Asks for an image, with a credential or without one.
    pub fn of(reference: &str, credential: Option<&Credential>) -> Self {
        let auth = |of: &Credential| AuthConfig { username: of.username.clone(), password: of.password.clone() };
        Self { image: ByImage::of(reference).image, auth: credential.map(auth) }
    }
}
