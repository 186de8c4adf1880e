//! Whether a container that ended is started again: the pod's policy, its own, and its rules.

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule};

/// `restartPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// `Always`.
    Always,
    /// `OnFailure`.
    OnFailure,
    /// `Never`.
    Never,
}

impl Policy {
    /// The policy of this name, by default the API's.
    pub fn of(text: Option<&str>) -> Self {
        match text {
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::Always,
        }
    }
}

/// One of a container's `restartPolicyRules`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// It restarts all containers of the pod (`RestartAllContainers`) instead of its own (`Restart`).
    pub all: bool,
    /// Whether it holds for the codes it names (`In`) or for all others (`NotIn`).
    pub within: bool,
    /// Exit codes.
    pub codes: Vec<i64>,
}

impl Rule {
    /// Reads a rule; None for one that says nothing, which validation refuses.
    fn of(rule: &ContainerRestartRule) -> Option<Self> {
        let on = rule.exit_codes.as_ref()?;
        let codes = on.values.iter().flatten().map(|code| i64::from(*code)).collect();
        Some(Self { all: rule.action == "RestartAllContainers", within: on.operator == "In", codes })
    }

    fn holds(&self, exit_code: i64) -> bool {
        self.codes.contains(&exit_code) == self.within
    }
}

/// What holds for one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// Its policy, where no rule holds.
    pub policy: Policy,
    /// The first that holds decides.
    pub rules: Vec<Rule>,
}

impl Restart {
    /// A policy without rules.
    pub fn plain(policy: Policy) -> Self {
        Self { policy, rules: vec![] }
    }

    /// What holds for a main or (`init`) an init container of a pod with this policy. An init container that succeeded is
    /// done whatever the policy says.
    pub fn of(pod: Policy, container: &Container, init: bool) -> Self {
        let own = container.restart_policy.as_deref().map_or(pod, |own| Policy::of(Some(own)));
        let policy = if init && own == Policy::Always { Policy::OnFailure } else { own };
        Self { policy, rules: container.restart_policy_rules.iter().flatten().filter_map(Rule::of).collect() }
    }

    /// Whether a container that ended with this code is started again. One that its own liveness or startup probe has
    /// `condemned` has failed, whatever code it ended with.
    pub fn again(&self, exit_code: i64, condemned: bool) -> bool {
        let by_policy = match self.policy {
            Policy::Always => true,
            Policy::OnFailure => condemned || exit_code != 0,
            Policy::Never => false,
        };
        by_policy || self.rule(exit_code).is_some()
    }

    /// Whether all containers of the pod are.
    pub fn all_again(&self, exit_code: i64) -> bool {
        self.rule(exit_code).is_some_and(|rule| rule.all)
    }

    fn rule(&self, exit_code: i64) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.holds(exit_code))
    }
}
