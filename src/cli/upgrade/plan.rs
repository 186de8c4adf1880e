//! `kubeboot upgrade plan`.

use std::process::ExitCode;

use serde::Serialize;

use super::apply::{configuration, explain};
use super::flags::{Also, CommandFlags, Section, To, UpgradeTarget};
use crate::cli::Globals;
use crate::config::spec::PullPolicy;
use crate::release::KubernetesVersion;
use crate::ui::{self, Output};
use crate::workflow::preflight::Severity;
use crate::workflow::upgrade::assess::{Assessment, Component, EtcdStep, Expiring};
use crate::workflow::upgrade::run::{Parts as Machine, Request, assess};
use crate::workflow::upgrade::table::{PHASES, SelectedPhases as Parts};

/// Exit code where something stands in the way of the upgrade.
const BLOCKED: u8 = 5;

/// Show what an upgrade would do, and everything that stands in its way
///
/// Touches nothing: what runs, which versions may follow, what each component would become and whether its image is here,
/// what happens to etcd, which certificates end soon, flags and feature gates that the version does not take, deprecated APIs
/// that are in use, and what `upgrade apply` would refuse. Without a version or an image it shows what runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kubeboot upgrade plan
  kubeboot upgrade plan v1.36.3
  kubeboot upgrade plan v1.36.3 -o json

Exit codes: 0 nothing stands in the way, 5 something does (each reason is printed), 1 any error.
`-o json` and `-o yaml` print kubeadm's UpgradePlan (output.kubeadm.k8s.io/v1alpha3); the field `kubeboot` has all the rest.")]
pub struct Args {
    #[command(flatten)]
    to: To,
    /// How to print: text, json or yaml.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    output: Output,
}

/// kubeadm's document, with ours inside.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UpgradePlan<'a> {
    kind: &'static str,
    api_version: &'static str,
    available_upgrades: Vec<AvailableUpgrade>,
    config_versions: Vec<ConfigVersion>,
    kubeboot: Ours<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AvailableUpgrade {
    description: String,
    components: Vec<Row>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    current_version: String,
    new_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    node_name: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigVersion {
    group: &'static str,
    current_version: &'static str,
    preferred_version: &'static str,
    manual_upgrade_required: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ours<'a> {
    /// Whether something stands in the way.
    blocked: bool,
    /// The command that does it; None where none was asked for.
    command: Option<&'a str>,
    #[serde(flatten)]
    assessment: &'a Assessment,
}

/// Runs the command.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let Args { to, output } = args;
    let command = "kubeboot upgrade apply".to_owned();
    let given = CommandFlags { command, to, also: Also::default(), dry_run: None, context_lines: None };
    let mut pull_policy: Option<PullPolicy> = None;
    let wanted = given.wanted(globals, |spec| {
        pull_policy = spec.apply.common.image_pull_policy;
        let mut section = Section::looking(spec.plan.kubernetes_version, &spec.apply);
        section.policy.experimental = spec.plan.allow_experimental_upgrades;
        section.policy.release_candidate = spec.plan.allow_rc_upgrades;
        section.common.etcd_upgrade = spec.plan.etcd_upgrade;
        section.common.ignore_preflight_errors = spec.plan.ignore_preflight_errors;
        section.print_config = spec.plan.print_config;
        section
    })?;
    let paths = globals.paths();
    let machine = Machine::of_machine(&paths, Some(wanted.kubeconfig.clone()), ui::reporter(Output::Text));
    let request = request(&wanted, pull_policy)?;
    let (prepared, found) = assess(&paths, &machine, &request, paths.is_live()).await.map_err(explain)?;
    if wanted.section.print_config && output == Output::Text {
        ui::print(&configuration(&prepared.spec)?)?;
    }
    let asked = request.goal.version.is_some() || !request.goal.images.is_empty();
    match output {
        Output::Text => ui::print(&text(&found, asked, &wanted.command, &prepared.spec.node.name))?,
        output => ui::print_value(output, &document(&found, asked, &wanted.command, &prepared.spec.node.name))?,
    }
    Ok(ExitCode::from(if asked && found.is_blocked() { BLOCKED } else { 0 }))
}

fn request(wanted: &UpgradeTarget, pull_policy: Option<PullPolicy>) -> anyhow::Result<Request> {
    Ok(Request {
        goal: wanted.goal(Parts::of(&PHASES, &[])?)?,
        command: wanted.command.clone(),
        one_phase: false,
        ignored: wanted.section.common.ignore_preflight_errors.clone(),
        warnings: wanted.warnings.clone(),
        warned: false,
        pull_policy,
    })
}

/// kubeadm's document.
fn document<'a>(found: &'a Assessment, asked: bool, command: &'a str, node: &str) -> UpgradePlan<'a> {
    let upgrades = match (asked, &found.target) {
        (true, target) => vec![available(found, target.as_deref(), node)],
        (false, _) => found.reachable.iter().map(|version| known(found, version, node)).collect(),
    };
    let config = |group, version| ConfigVersion {
        group,
        current_version: version,
        preferred_version: version,
        manual_upgrade_required: false,
    };
    UpgradePlan {
        kind: "UpgradePlan",
        api_version: "output.kubeadm.k8s.io/v1alpha3",
        available_upgrades: upgrades,
        config_versions: vec![
            config("kubeproxy.config.k8s.io", "v1alpha1"),
            config("kubelet.config.k8s.io", "v1beta1"),
        ],
        kubeboot: Ours { blocked: asked && found.is_blocked(), command: asked.then_some(command), assessment: found },
    }
}

/// The upgrade that was asked for.
fn available(found: &Assessment, target: Option<&str>, node: &str) -> AvailableUpgrade {
    let description = match target {
        Some(target) => description(found.running.as_deref(), target),
        None => "other images".to_owned(),
    };
    let version = |version: &Option<String>, image: &String| version.clone().unwrap_or_else(|| image.clone());
    let of = |one: &Component, node: &str| Row {
        name: one.name.clone(),
        current_version: version(&one.current_version, &one.current_image),
        new_version: version(&one.target_version, &one.target_image),
        node_name: node.to_owned(),
    };
    let mut components = kubelets(found, target);
    components.extend(found.components.iter().map(|one| of(one, node)));
    components.extend(found.addons.iter().map(|one| of(one, "")));
    AvailableUpgrade { description, components }
}

/// A version that may follow, of which only the versions of Kubernetes' own components are known without being asked for.
fn known(found: &Assessment, version: &str, node: &str) -> AvailableUpgrade {
    let mut components = kubelets(found, Some(version));
    let own = found.components.iter().filter(|one| one.name != "etcd");
    components.extend(own.map(|one| Row {
        name: one.name.clone(),
        current_version: one.current_version.clone().unwrap_or_else(|| one.current_image.clone()),
        new_version: version.to_owned(),
        node_name: node.to_owned(),
    }));
    AvailableUpgrade { description: description(found.running.as_deref(), version), components }
}

fn kubelets(found: &Assessment, target: Option<&str>) -> Vec<Row> {
    let Some(target) = target else { return Vec::new() };
    let of = |node: &crate::workflow::upgrade::assess::Node| {
        let current_version = node.kubelet.clone()?;
        let (new_version, node_name) = (target.to_owned(), node.name.clone());
        (current_version != new_version).then(|| Row {
            name: "kubelet".into(),
            current_version,
            new_version,
            node_name,
        })
    };
    found.nodes.iter().filter_map(of).collect()
}

/// kubeadm's words for a version.
fn description(running: Option<&str>, target: &str) -> String {
    let parse = |text: &str| text.parse::<KubernetesVersion>().ok();
    match (running.and_then(parse), parse(target)) {
        (_, Some(to)) if to.semver().pre.starts_with("rc.") => "release candidate version".to_owned(),
        (_, Some(to)) if to.is_prerelease() => "experimental version".to_owned(),
        (Some(from), Some(to)) if from.minor() == to.minor() => format!("version in the v1.{} series", to.minor()),
        _ => "stable version".to_owned(),
    }
}

fn text(found: &Assessment, asked: bool, command: &str, node: &str) -> String {
    let running = found.running.as_deref().unwrap_or("an unknown version");
    let mut text = format!("Kubernetes {running} is running.\n");
    if !asked {
        text.push_str(&match found.reachable.as_slice() {
            [] => "This program knows no newer version that may follow; name one to see what it would do.\n".to_owned(),
            known => format!(
                "It may go to {}, of the versions that this program knows (no server is asked).\n",
                known.join(" or ")
            ),
        });
    }
    text.push('\n');
    let mut rows: Vec<[String; 5]> = found.components.iter().map(|one| row(one, node)).collect();
    rows.extend(found.addons.iter().map(|one| row(one, "")));
    rows.extend(found.nodes.iter().map(|node| {
        let kubelet = node.kubelet.clone().unwrap_or_else(|| "unknown".to_owned());
        ["kubelet".into(), node.name.clone(), kubelet, String::new(), "not upgraded by this command".into()]
    }));
    text.push_str(&ui::table(["COMPONENT", "NODE", "CURRENT", "TARGET", "IMAGE"], rows));
    let files = found.files.iter().map(|file| format!("{} would change\n", file.display()));
    let etcd = found.etcd.iter().filter(|step| step.replaced).map(etcd);
    let certificates = found.certificates.iter().filter(|one| one.renewed).map(renewed);
    let rest: String = etcd.chain(certificates).chain(files).collect();
    if !rest.is_empty() {
        text.push_str(&format!("\n{rest}"));
    }
    text.push_str(&findings(found));
    let changes = found.components.iter().any(|one| one.replaced) || !found.files.is_empty();
    text.push_str(&match (asked, found.is_blocked()) {
        (false, _) => "\nTo see what a version would do, name it: kubeboot upgrade plan v1.36.3\n".to_owned(),
        (true, true) => "\nThe upgrade cannot be done before what stands in its way is mended.\n".to_owned(),
        (true, false) if changes => format!("\nTo do it:  {command}\n"),
        (true, false) => format!("\nNothing to do: Kubernetes {running} is running with these very manifests.\n"),
    });
    text
}

fn row(one: &Component, node: &str) -> [String; 5] {
    let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "unknown".to_owned());
    let image = match (one.replaced, one.image_present) {
        (false, _) => "stays as it is".to_owned(),
        (true, Some(true)) => format!("{} (here)", one.target_image),
        (true, Some(false)) => format!("{} (to be pulled)", one.target_image),
        (true, None) => one.target_image.clone(),
    };
    [one.name.clone(), node.to_owned(), version(&one.current_version), version(&one.target_version), image]
}

fn etcd(step: &EtcdStep) -> String {
    let opened = match step.data_opened_by.as_slice() {
        [] => String::new(),
        known => format!("; etcd {} opens the data of {}", known.join(" or "), step.from),
    };
    let back = match step.goes_back {
        true => "a rollback takes it back without losing a write",
        false => "a rollback leaves it as it is once it has served, because its data do not go back without loss",
    };
    format!("etcd {} is replaced by {}{opened}; {back}\n", step.from, step.to)
}

fn renewed(one: &Expiring) -> String {
    format!("the certificate {} ends on {}, and is renewed\n", one.name, one.expires.strftime("%Y-%m-%d"))
}

fn findings(found: &Assessment) -> String {
    let line = |one: &crate::workflow::preflight::Finding| {
        let severity = if one.severity == Severity::Error { "error" } else { "warning" };
        format!("{severity}: {one}\n")
    };
    let lines: String = found.findings.iter().map(line).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::preflight::Finding;
    use crate::workflow::upgrade::assess::Node;

    fn component(name: &str, now: &str, then: &str, here: Option<bool>) -> Component {
        Component {
            name: name.into(),
            current_image: format!("r/{name}:{now}"),
            current_version: Some(now.into()),
            target_image: format!("r/{name}:{then}"),
            target_version: Some(then.into()),
            replaced: now != then,
            image_present: here,
        }
    }

    fn found() -> Assessment {
        let finding = |check: &str, severity| Finding { check: check.into(), severity, message: "why".into() };
        Assessment {
            running: Some("v1.36.2".into()),
            target: Some("v1.37.1".into()),
            reachable: vec!["v1.36.4".into(), "v1.37.1".into()],
            components: vec![
                component("etcd", "3.6.8-0", "3.7.0-0", Some(false)),
                component("kube-scheduler", "v1.36.2", "v1.37.1", Some(true)),
            ],
            addons: vec![component("CoreDNS", "v1.14.2", "v1.14.2", None)],
            nodes: vec![Node { name: "w1".into(), kubelet: Some("v1.35.0".into()) }],
            etcd: Some(EtcdStep {
                from: "3.6.8".into(),
                to: "3.7.0-0".into(),
                replaced: true,
                data_opened_by: vec!["3.6".into(), "3.7".into()],
                goes_back: true,
            }),
            findings: vec![finding("RemovedFlags", Severity::Error), finding("DeprecatedAPIs", Severity::Warning)],
            ..Assessment::default()
        }
    }

    #[test]
    fn the_document_is_kubeadms_with_ours_inside() {
        let found = found();
        let value = serde_json::to_value(document(&found, true, "kubeboot upgrade apply v1.37.1", "cp1")).unwrap();
        assert_eq!(
            (&value["kind"], &value["apiVersion"]),
            (&"UpgradePlan".into(), &"output.kubeadm.k8s.io/v1alpha3".into())
        );
        let upgrade = &value["availableUpgrades"][0];
        assert_eq!(upgrade["description"], "stable version");
        let expected = serde_json::json!([
            {"name": "kubelet", "currentVersion": "v1.35.0", "newVersion": "v1.37.1", "nodeName": "w1"},
            {"name": "etcd", "currentVersion": "3.6.8-0", "newVersion": "3.7.0-0", "nodeName": "cp1"},
            {"name": "kube-scheduler", "currentVersion": "v1.36.2", "newVersion": "v1.37.1", "nodeName": "cp1"},
            {"name": "CoreDNS", "currentVersion": "v1.14.2", "newVersion": "v1.14.2"},
        ]);
        assert_eq!(upgrade["components"], expected);
        assert_eq!(value["configVersions"][1]["group"], "kubelet.config.k8s.io");
        let ours = &value["kubeboot"];
        assert_eq!((&ours["blocked"], &ours["target"]), (&true.into(), &"v1.37.1".into()));
        assert_eq!(
            ours["findings"][0],
            serde_json::json!({"check": "RemovedFlags", "severity": "error", "message": "why"})
        );
        assert_eq!(ours["components"][0]["imagePresent"], false);
        let none = serde_json::to_value(document(&found, false, "", "cp1")).unwrap();
        let descriptions: Vec<&str> = none["availableUpgrades"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["description"].as_str().unwrap())
            .collect();
        assert_eq!(descriptions, ["version in the v1.36 series", "stable version"]);
        assert_eq!(none["kubeboot"]["blocked"], false, "nothing was asked for that could be blocked");
    }

    #[test]
    fn the_text_shows_each_component_and_every_reason() {
        insta::assert_snapshot!(text(&found(), true, "kubeboot upgrade apply v1.37.1", "cp1"), @r"
        Kubernetes v1.36.2 is running.

        COMPONENT        NODE   CURRENT   TARGET    IMAGE
        etcd             cp1    3.6.8-0   3.7.0-0   r/etcd:3.7.0-0 (to be pulled)
        kube-scheduler   cp1    v1.36.2   v1.37.1   r/kube-scheduler:v1.37.1 (here)
        CoreDNS                 v1.14.2   v1.14.2   stays as it is
        kubelet          w1     v1.35.0             not upgraded by this command

        etcd 3.6.8 is replaced by 3.7.0-0; etcd 3.6 or 3.7 opens the data of 3.6.8; a rollback takes it back without losing a write

        error: RemovedFlags: why
        warning: DeprecatedAPIs: why

        The upgrade cannot be done before what stands in its way is mended.
        ");
        let mut found = found();
        found.findings.clear();
        assert!(
            text(&found, true, "kubeboot upgrade apply v1.37.1", "cp1")
                .ends_with("To do it:  kubeboot upgrade apply v1.37.1\n")
        );
        let none = text(&found, false, "", "cp1");
        assert!(none.contains("It may go to v1.36.4 or v1.37.1, of the versions"), "{none}");
    }

    #[test]
    fn versions_are_described_in_kubeadms_words() {
        let of = |target| description(Some("v1.36.2"), target);
        assert_eq!(of("v1.36.9"), "version in the v1.36 series");
        assert_eq!(of("v1.37.0"), "stable version");
        assert_eq!(
            (of("v1.37.0-rc.1"), of("v1.37.0-beta.0")),
            ("release candidate version".into(), "experimental version".into())
        );
    }
}
