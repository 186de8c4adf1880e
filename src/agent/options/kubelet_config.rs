//! The `KubeletConfiguration` file, read by the table: fields that are options of their own, those that are resolved together
//! with others, those that mean nothing, and those that are none.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::agent_options::AgentOptions;
use super::config_files::ConfigFile;
use super::error::OptionsError;
use super::node::NodeTaint;
use super::table::{self, OptionRow, Setting};
use super::values;
use crate::yaml::{self, DecodeError, Entry, Kind, Node, Problem, Repeated, Segment, YamlError};

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";
/// The field whose values may be passwords.
const HEADERS: &str = "staticPodURLHeader";

/// The fields that are resolved together with other options. Every other one is read by its row of the table.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct KubeletConfiguration {
    pub api_version: Option<String>,
    pub kind: Option<String>,
    #[serde(rename = "staticPodPath")]
    pub static_pod_path: Option<String>,
    #[serde(rename = "staticPodURL", deserialize_with = "values::url_field")]
    pub static_pod_url: Option<String>,
    #[serde(rename = "staticPodURLHeader", deserialize_with = "values::headers_field")]
    pub static_pod_url_header: Option<BTreeMap<String, Vec<String>>>,
    pub healthz_port: Option<u16>,
    #[serde(deserialize_with = "values::address_field")]
    pub healthz_bind_address: Option<IpAddr>,
    #[serde(deserialize_with = "values::address_field")]
    pub address: Option<IpAddr>,
    pub read_only_port: Option<u16>,
    pub serialize_image_pulls: Option<bool>,
    #[serde(deserialize_with = "values::pulls_field")]
    pub max_parallel_image_pulls: Option<usize>,
    pub crash_loop_back_off: Option<CrashLoopBackOff>,
    #[serde(deserialize_with = "values::taints_field")]
    pub register_with_taints: Option<Vec<NodeTaint>>,
    #[serde(deserialize_with = "values::duration_field")]
    pub node_status_update_frequency: Option<Duration>,
    #[serde(deserialize_with = "values::duration_field")]
    pub node_status_report_frequency: Option<Duration>,
    pub system_reserved: Option<BTreeMap<String, String>>,
    pub kube_reserved: Option<BTreeMap<String, String>>,
    pub eviction_hard: Option<BTreeMap<String, String>>,
    pub merge_default_eviction_settings: Option<bool>,
    pub enable_server: Option<bool>,
    pub port: Option<u16>,
    pub tls_cert_file: Option<String>,
    pub tls_private_key_file: Option<String>,
    pub tls_min_version: Option<String>,
    pub authentication: Option<Authentication>,
    pub authorization: Option<AuthorizationField>,
    pub container_runtime_endpoint: Option<String>,
    pub feature_gates: Option<BTreeMap<String, bool>>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct CrashLoopBackOff {
    #[serde(deserialize_with = "values::duration_field")]
    pub max_container_restart_period: Option<Duration>,
}

/// `authentication` of the file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Authentication {
    pub anonymous: Option<Switch>,
    pub webhook: Option<Webhook>,
    pub x509: Option<X509>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Switch {
    pub enabled: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Webhook {
    pub enabled: Option<bool>,
    #[serde(rename = "cacheTTL", deserialize_with = "values::duration_field")]
    pub cache_ttl: Option<Duration>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct X509 {
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: Option<String>,
}

/// `authorization` of the file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct AuthorizationField {
    pub mode: Option<String>,
    pub webhook: Option<AuthorizationWebhook>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct AuthorizationWebhook {
    #[serde(rename = "cacheAuthorizedTTL", deserialize_with = "values::duration_field")]
    pub cache_authorized_ttl: Option<Duration>,
    #[serde(rename = "cacheUnauthorizedTTL", deserialize_with = "values::duration_field")]
    pub cache_unauthorized_ttl: Option<Duration>,
}

/// What the files come to.
#[derive(Debug)]
pub(super) struct Read {
    /// The fields of all of them that are resolved together with other options.
    pub config: KubeletConfiguration,
    /// Options as all the other fields set them.
    pub options: AgentOptions,
    /// All fields as they are written, with those that mean nothing to this agent, and without what may be a password.
    pub written: Map<String, Value>,
    /// The fields that mean nothing to this agent, a line a file.
    pub notes: Vec<String>,
    /// What a kubelet takes only as a second try, a line a file.
    pub warnings: Vec<String>,
}

/// Reads the configuration file and its drop-ins, each over those before it.
pub(super) fn read(files: &[ConfigFile]) -> Result<Read, OptionsError> {
    let mut read = Read {
        config: KubeletConfiguration::default(),
        options: AgentOptions::new(""),
        written: Map::new(),
        notes: Vec::new(),
        warnings: Vec::new(),
    };
    let mut merged: Option<Node> = None;
    for file in files {
        let parsed = parse(file)?;
        let name = file.path.display();
        if !parsed.ignored.is_empty() {
            read.notes.push(format!("{name}: these fields mean nothing to this agent: {}", parsed.ignored.join(", ")));
        }
        if !parsed.doubts.is_empty() {
            let doubts: Vec<String> = parsed.doubts.iter().map(|doubt| place(&file.path, doubt)).collect();
            read.warnings.push(format!("{name} is read leniently, as a kubelet reads it: {}", doubts.join("; ")));
        }
        match &mut merged {
            None => merged = Some(parsed.node),
            Some(below) => lay_over(below, parsed.node),
        }
    }
    let Some((merged, file)) = merged.zip(files.last()) else { return Ok(read) };
    let mut written = match merged.to_value() {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    written.remove(HEADERS);
    let (config, faults) = decode(merged, &mut read.options);
    match faults.into_iter().find(|fault| !is_unknown(fault)) {
        Some(fault) => Err(invalid(&file.path, &[YamlError::from(fault)])),
        None => Ok(Read { config, written, ..read }),
    }
}

/// Reads the fields of a file: those that are options of their own into `options`. Returns the others, and every fault in the
/// order of the file.
fn decode(mut node: Node, options: &mut AgentOptions) -> (KubeletConfiguration, Vec<DecodeError>) {
    drop_ignored(&mut node);
    let mut faults = Vec::new();
    if let Kind::Map(entries) = &mut node.kind {
        entries.retain_mut(|entry| {
            let setting =
                table::of_field(&entry.key).and_then(OptionRow::setting).filter(|setting| !setting.is_joint());
            if let Some(setting) = setting {
                faults.extend(read_field(setting, options, entry));
            }
            setting.is_none()
        });
    }
    let (config, more) = node.decode_all::<KubeletConfiguration>();
    faults.extend(more.into_iter().map(with_all_names));
    faults.sort_by_key(|fault| fault.at.map(|at| (at.line, at.column)));
    (config, faults)
}

/// A null is as a field that is not there.
fn read_field(setting: &Setting, options: &mut AgentOptions, entry: &mut Entry) -> Vec<DecodeError> {
    if entry.node.kind == Kind::Null {
        return Vec::new();
    }
    let mut faults = setting.by_field(options, &mut entry.node).err().unwrap_or_default();
    for fault in &mut faults {
        fault.path.insert(0, Segment::Key(entry.key.clone()));
    }
    faults
}

/// A field that is none, with the names of all that there are: what was meant may be one of those that were read before.
fn with_all_names(mut fault: DecodeError) -> DecodeError {
    if let (Problem::UnknownField(_, known), [_]) = (&mut fault.problem, fault.path.as_slice()) {
        *known = table::followed_fields();
    }
    fault
}

/// Takes out the fields that mean nothing to this agent, and returns their names.
fn drop_ignored(node: &mut Node) -> Vec<String> {
    let Kind::Map(entries) = &mut node.kind else { return Vec::new() };
    let is_ignored = |entry: &Entry| table::is_ignored(&entry.key);
    let names = entries.iter().filter(|entry| is_ignored(entry)).map(|entry| entry.key.clone()).collect();
    entries.retain(|entry| !is_ignored(entry));
    names
}

/// A field that the type has not is no reason for a node to stay down: `init` and `config validate` look for it before.
fn is_unknown(fault: &DecodeError) -> bool {
    matches!(fault.problem, Problem::UnknownField(..))
}

/// Fields of a KubeletConfiguration that the type has not, by their paths: a slip of the pen, as a rule.
pub fn unknown_fields(config: &serde_json::Value) -> Vec<String> {
    let Ok(node) = yaml::to_string(config).map_err(drop).and_then(|text| {
        let documents = yaml::documents(&text).map_err(drop)?;
        documents.first().ok_or(()).and_then(|document| Node::parse(document).map_err(drop))
    }) else {
        return vec![];
    };
    let (_, faults) = decode(node, &mut AgentOptions::new(""));
    faults.into_iter().filter(is_unknown).map(|fault| YamlError::from(fault).path).collect()
}

/// One file.
struct Parsed {
    /// Its fields.
    node: Node,
    /// Those that mean nothing, by name, in the order of the file.
    ignored: Vec<String>,
    /// What is wrong with it and does not matter.
    doubts: Vec<YamlError>,
}

fn parse(file: &ConfigFile) -> Result<Parsed, OptionsError> {
    let fault = |problem: YamlError| invalid(&file.path, &[problem]);
    let documents = yaml::documents(&file.text).map_err(fault)?;
    let Some((document, more)) = documents.split_first() else {
        return Err(fault(whole("must hold a document, found none".to_owned())));
    };
    let (mut node, repeated) = Node::parse_lenient(document).map_err(fault)?;
    let mut doubts: Vec<YamlError> = repeated.iter().map(twice).collect();
    if more.iter().any(|document| !Node::parse(document).is_ok_and(|node| node.kind == Kind::Null)) {
        doubts.push(whole("only the first document is used".to_owned()));
    }
    let (config, faults) = decode(node.clone(), &mut AgentOptions::new(""));
    let (unknown, faults): (Vec<_>, Vec<_>) = faults.into_iter().partition(is_unknown);
    let mut problems: Vec<YamlError> = faults.into_iter().map(YamlError::from).collect();
    for (field, found, wanted) in [("apiVersion", &config.api_version, API_VERSION), ("kind", &config.kind, KIND)] {
        let reported = problems.iter().any(|p| p.path == field);
        if !reported && found.as_deref() != Some(wanted) {
            let found = found.as_deref().unwrap_or("nothing");
            problems.push(whole(format!("{field} must be {wanted}, found {found}")));
        }
    }
    if !problems.is_empty() {
        return Err(invalid(&file.path, &problems));
    }
    doubts.extend(unknown.into_iter().map(YamlError::from));
    anchor(&mut node, &file.base);
    let ignored = drop_ignored(&mut node.clone());
    Ok(Parsed { node, ignored, doubts })
}

/// Of a key that stands twice the last one counts, as for a kubelet that reads the document the second, lenient time.
fn twice(repeated: &Repeated) -> YamlError {
    let Repeated { path, at, before } = repeated;
    let problem = format!("is written twice: line {} counts, line {} does not", at.line, before.line);
    YamlError { line: at.line, column: at.column, path: yaml::path_to_string(path), problem }
}

/// Makes the paths of a file absolute.
fn anchor(node: &mut Node, base: &Path) {
    for path in table::path_fields() {
        if let Some(Kind::String(path)) = find(node, path)
            && !path.is_empty()
        {
            *path = base.join(&*path).display().to_string();
        }
    }
}

/// What stands at a path of fields.
fn find<'n>(node: &'n mut Node, path: &str) -> Option<&'n mut Kind> {
    path.split('.').try_fold(&mut node.kind, |kind, field| match kind {
        Kind::Map(entries) => entries.iter_mut().find(|entry| entry.key == field).map(|entry| &mut entry.node.kind),
        _ => None,
    })
}

/// Merges as the kubelet does its drop-ins, which is a JSON merge patch: maps key by key, anything else whole, and a
/// null takes back what was set below.
fn lay_over(below: &mut Node, above: Node) {
    match (&mut below.kind, above) {
        (Kind::Map(into), Node { kind: Kind::Map(from), .. }) => {
            from.into_iter().for_each(|entry| lay_entry(into, entry))
        }
        (_, above) => *below = above,
    }
}

fn lay_entry(into: &mut Vec<Entry>, entry: Entry) {
    let found = into.iter().position(|one| one.key == entry.key);
    match (found, &entry.node.kind) {
        (Some(index), Kind::Null) => drop(into.remove(index)),
        (None, Kind::Null) => {}
        (Some(index), _) => lay_over(&mut into[index].node, entry.node),
        (None, _) => into.push(entry),
    }
}

fn invalid(file: &Path, problems: &[YamlError]) -> OptionsError {
    OptionsError::Config { file: file.to_owned(), problems: problems.iter().map(|p| place(file, p)).collect() }
}

fn whole(problem: String) -> YamlError {
    YamlError { line: 1, column: 1, path: String::new(), problem }
}

fn place(file: &Path, problem: &YamlError) -> String {
    let path = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
    format!("{}:{}:{}: {path}{}", file.display(), problem.line, problem.column, problem.problem)
}
