//! What a run of `init` makes up at random and gives the cluster: kept until the run has ended, so that one that was
//! cut off is gone on with by the same values, and nothing is made twice.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::StepError;
use crate::config::ClusterSpec;
use crate::config::bootstrap_token::{BootstrapToken, Token};
use crate::config::certificate_key::CertificateKey;
use crate::host::paths::STATE_DIR;
use crate::host::tree::Tree;

const FILE: &str = "drawn.json";

/// The values.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratedSecrets {
    /// The tokens, in the order of the configuration, whose own tokens are among them.
    pub tokens: Vec<BootstrapToken>,
    /// The key that certificates are uploaded with.
    pub certificate_key: CertificateKey,
    /// The token whose end takes the uploaded certificates along.
    pub certificates_token: Token,
}

/// The file. It opens the cluster's door to new nodes, so only root reads it, and not for longer than needed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Record {
    /// `init`, or the one phase.
    command: String,
    tokens: Vec<String>,
    certificate_key: String,
    certificates_token: String,
}

fn path() -> PathBuf {
    Path::new(STATE_DIR).join(FILE)
}

impl GeneratedSecrets {
    /// New values, for what the configuration leaves open.
    ///
    /// # Errors
    /// No random numbers.
    pub fn new(spec: &ClusterSpec) -> Result<Self, StepError> {
        let tokens = spec.bootstrap_tokens.iter().map(|_| Token::generate()).collect::<Result<Vec<_>, _>>();
        Self::of(spec, tokens.map_err(random)?, CertificateKey::generate().map_err(random)?)
    }

    fn of(spec: &ClusterSpec, tokens: Vec<Token>, key: CertificateKey) -> Result<Self, StepError> {
        let wanted = spec.bootstrap_tokens.iter().zip(tokens);
        Ok(Self {
            tokens: wanted
                .map(|(wanted, generated_secrets)| wanted.with(wanted.token.clone().unwrap_or(generated_secrets)))
                .collect(),
            certificate_key: spec.certificate_key.clone().unwrap_or(key),
            certificates_token: Token::generate().map_err(random)?,
        })
    }

    /// The values of an earlier run that did not come to its end, where that ran this `command` or the whole of `init`;
    /// else new ones, which are kept from now on.
    ///
    /// # Errors
    /// No random numbers; a file that cannot be written.
    pub fn recall_or_draw(spec: &ClusterSpec, command: &str, tree: &mut dyn Tree) -> Result<Self, StepError> {
        let kept = tree.read(&path())?.and_then(|text| serde_json::from_slice::<Record>(&text).ok());
        let kept = kept.filter(|record| record.command == command || record.command == "init");
        if let Some(generated_secrets) = kept.and_then(|record| record.generated_secrets(spec)) {
            return Ok(generated_secrets);
        }
        let generated_secrets = Self::new(spec)?;
        let record = Record {
            command: command.to_owned(),
            tokens: generated_secrets.tokens.iter().map(|token| token.token.reveal()).collect(),
            certificate_key: generated_secrets.certificate_key.reveal(),
            certificates_token: generated_secrets.certificates_token.reveal(),
        };
        let text = serde_json::to_vec(&record).map_err(|error| StepError::Cluster(error.into()))?;
        tree.write(&path(), &text, 0o600)?;
        Ok(generated_secrets)
    }

    /// The same without the tokens that are made up: a cluster that was given one is not given another each time.
    pub fn without_random_tokens(mut self, spec: &ClusterSpec) -> Self {
        let mut wanted = spec.bootstrap_tokens.iter();
        self.tokens.retain(|_| wanted.next().is_some_and(|wanted| wanted.token.is_some()));
        self
    }

    /// Forgets what `command` has made up: it has come to its end.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn forget(command: &str, tree: &mut dyn Tree) -> Result<(), StepError> {
        let kept = tree.read(&path())?.map(|text| serde_json::from_slice::<Record>(&text));
        if let Some(Ok(Record { command: whose, .. })) = kept
            && (whose == command || command == "init")
        {
            tree.remove(&path())?;
        }
        Ok(())
    }
}

impl Record {
    /// None where it is not of this configuration.
    fn generated_secrets(&self, spec: &ClusterSpec) -> Option<GeneratedSecrets> {
        let tokens = self.tokens.iter().map(|token| token.parse().ok()).collect::<Option<Vec<Token>>>()?;
        if tokens.len() != spec.bootstrap_tokens.len() {
            return None;
        }
        let mut generated_secrets = GeneratedSecrets::of(spec, tokens, self.certificate_key.parse().ok()?).ok()?;
        generated_secrets.certificates_token = self.certificates_token.parse().ok()?;
        Some(generated_secrets)
    }
}

fn random(error: impl std::error::Error + Send + Sync + 'static) -> StepError {
    StepError::Cluster(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tree::MemoryTree;
    use crate::testing::spec;

    #[test]
    fn a_run_goes_on_with_what_an_unfinished_one_has_made_up() {
        let (spec, mut tree) = (spec(), MemoryTree::empty());
        let first = GeneratedSecrets::recall_or_draw(&spec, "init", &mut tree).unwrap();
        assert_eq!(tree.files()[&path()].mode, 0o600);
        for command in ["init", "init phase bootstrap-token"] {
            assert_eq!(GeneratedSecrets::recall_or_draw(&spec, command, &mut tree).unwrap(), first);
        }
        GeneratedSecrets::forget("init phase bootstrap-token", &mut tree).unwrap();
        assert_eq!(GeneratedSecrets::recall_or_draw(&spec, "init", &mut tree).unwrap(), first);
        GeneratedSecrets::forget("init", &mut tree).unwrap();
        assert!(!tree.exists(&path()));
        assert_ne!(GeneratedSecrets::recall_or_draw(&spec, "init", &mut tree).unwrap(), first);
    }

    #[test]
    fn what_the_configuration_names_is_taken_from_there() {
        let (mut spec, mut tree) = (spec(), MemoryTree::empty());
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        GeneratedSecrets::recall_or_draw(&spec, "init", &mut tree).unwrap();
        spec.bootstrap_tokens[0].token = Some(token.clone());
        spec.certificate_key = Some("0f".repeat(32).parse().unwrap());
        let generated_secrets = GeneratedSecrets::recall_or_draw(&spec, "init", &mut tree).unwrap();
        assert_eq!(
            (generated_secrets.tokens[0].token.clone(), Some(generated_secrets.certificate_key)),
            (token, spec.certificate_key.clone())
        );
    }

    #[test]
    fn a_record_that_cannot_be_read_is_made_anew() {
        let (spec, mut tree) = (spec(), MemoryTree::empty());
        tree.write(&path(), b"{", 0o600).unwrap();
        let generated_secrets = GeneratedSecrets::recall_or_draw(&spec, "init", &mut tree).unwrap();
        assert_eq!(GeneratedSecrets::recall_or_draw(&spec, "init", &mut tree).unwrap(), generated_secrets);
    }
}
