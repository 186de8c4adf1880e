//! What can be written in a configuration, out of the very types that read it: JSON schemas and the reference.

use schemars::{Schema, schema_for};
use serde_json::{Map, Value};

use super::cluster::gate_rows;
use super::defaults;
use super::error::ConfigError;
use super::print::API_VERSION;
use super::spec::KubebootSpec;
use super::wire::{
    ClusterConfiguration, InitConfiguration, JoinConfiguration, ResetConfiguration, UpgradeConfiguration,
};

/// A kind that has a schema.
struct Row {
    kind: &'static str,
    api_version: &'static str,
    about: &'static str,
    schema: fn() -> Schema,
}

/// Our own document's kind.
pub const KUBEBOOT_KIND: &str = "KubebootConfiguration";

const KINDS: &[Row] = &[
    Row {
        kind: KUBEBOOT_KIND,
        api_version: "kubeboot.dev/v1alpha1",
        about: "What kubeadm's documents have no word for. Read by `init` and `join`, in the same file.",
        schema: || schema_for!(KubebootSpec),
    },
    Row {
        kind: "InitConfiguration",
        api_version: API_VERSION,
        about: "This node, as `init` makes it.",
        schema: || schema_for!(InitConfiguration),
    },
    Row {
        kind: "ClusterConfiguration",
        api_version: API_VERSION,
        about: "The cluster as a whole. Read by `init`.",
        schema: || schema_for!(ClusterConfiguration),
    },
    Row {
        kind: "JoinConfiguration",
        api_version: API_VERSION,
        about: "This node, as `join` adds it to a cluster.",
        schema: || schema_for!(JoinConfiguration),
    },
    Row {
        kind: "ResetConfiguration",
        api_version: API_VERSION,
        about: "Read by `reset`.",
        schema: || schema_for!(ResetConfiguration),
    },
    Row {
        kind: "UpgradeConfiguration",
        api_version: API_VERSION,
        about: "Read by the commands below `upgrade`, each its own section.",
        schema: || schema_for!(UpgradeConfiguration),
    },
];

/// The kinds that have a schema.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|row| row.kind)
}

/// The path of every field of `kind`, `a.b[].c`.
pub fn paths(kind: &str) -> Vec<String> {
    let row = KINDS.iter().find(|row| row.kind == kind);
    let fields = row.map(|row| walk(row, &Value::Null)).unwrap_or_default();
    fields.into_iter().map(|field| field.path).collect()
}

/// The JSON schema of `kind`; None for a kind without.
pub fn schema(kind: &str) -> Option<Value> {
    let row = KINDS.iter().find(|row| row.kind == kind)?;
    let mut schema = (row.schema)().to_value();
    clean(&mut schema);
    schema["title"] = row.kind.into();
    schema["required"] = vec!["apiVersion", "kind"].into();
    schema["properties"]["apiVersion"] = serde_json::json!({ "const": row.api_version });
    schema["properties"]["kind"] = serde_json::json!({ "const": row.kind });
    Some(schema)
}

/// Takes away defaults that say nothing: what is empty may get its value from elsewhere. And the words that a kind or a
/// part of it is described with where those of the field are better.
fn clean(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| key != "default" || says_something(value));
            map.values_mut().for_each(clean);
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        _ => {}
    }
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Null | Value::Object(_) => false,
        Value::Bool(_) | Value::Number(_) => true,
    }
}

/// One field of a kind, as the reference has it.
struct Field {
    path: String,
    of: String,
    default: String,
    about: String,
}

/// Fields of printed defaults that are placeholders.
const PLACEHOLDERS: &[&str] = &[
    "bootstrapTokens",
    "criSocket",
    "nodeRegistration.name",
    "nodeRegistration.criSocket",
    "nodeRegistration.taints",
    "localAPIEndpoint.advertiseAddress",
    "discovery",
];

/// Values that lists of objects get, which no printed default can show.
const LISTED: &[(&str, &str)] = &[
    ("bootstrapTokens[].ttl", "24h0m0s"),
    ("bootstrapTokens[].usages", "signing, authentication"),
    ("bootstrapTokens[].groups", super::bootstrap_token::NODE_GROUP),
];

/// The fields of a schema, depth first.
struct Walk<'a> {
    defs: &'a Value,
    defaults: &'a Value,
    fields: Vec<Field>,
}

impl Walk<'_> {
    /// The schema itself in place of a reference to it, or of it-or-null.
    fn resolve<'b>(&'b self, schema: &'b Value) -> &'b Value {
        let alternative = schema["anyOf"].get(0).unwrap_or(schema);
        let name = alternative["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
        name.and_then(|name| self.defs.get(name)).unwrap_or(alternative)
    }

    fn object(&mut self, schema: &Value, above: &str) {
        let Some(properties) = schema["properties"].as_object() else { return };
        for (name, property) in properties {
            let path = format!("{above}{name}");
            let target = self.resolve(property).clone();
            let about = [property, &target].iter().find_map(|schema| schema["description"].as_str());
            let about = about.unwrap_or_default().replace('\n', " ");
            let of = self.type_name(&target);
            self.fields.push(Field { default: self.default(&path), of, about, path: path.clone() });
            self.object(&target, &format!("{path}."));
            let items = self.resolve(&target["items"]).clone();
            self.object(&items, &format!("{path}[]."));
        }
    }

    fn type_name(&self, schema: &Value) -> String {
        let words = |list: &Value| {
            let words = list.as_array().into_iter().flatten();
            words.filter_map(|word| word.as_str().or_else(|| word["const"].as_str())).collect::<Vec<_>>().join(", ")
        };
        if schema["enum"].is_array() || schema["oneOf"].is_array() {
            return [words(&schema["enum"]), words(&schema["oneOf"])].join("");
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds.first().and_then(Value::as_str).unwrap_or_default(),
            kind => kind.as_str().unwrap_or("any"),
        };
        match kind {
            "array" => format!("list of {}", self.type_name(self.resolve(&schema["items"]))),
            "string" if schema["format"] == "duration of Go" => "duration".to_owned(),
            "object" if schema["additionalProperties"].is_object() => {
                format!("map of {}", self.type_name(self.resolve(&schema["additionalProperties"])))
            }
            kind => kind.to_owned(),
        }
    }

    fn default(&self, path: &str) -> String {
        if let Some((_, listed)) = LISTED.iter().find(|(listed, _)| *listed == path) {
            return format!("`{listed}`");
        }
        if PLACEHOLDERS.iter().any(|placeholder| path == *placeholder || path.starts_with(&format!("{placeholder}."))) {
            return String::new();
        }
        match self.defaults.pointer(&format!("/{}", path.replace('.', "/"))) {
            Some(Value::String(text)) => format!("`{text}`"),
            Some(value @ (Value::Bool(_) | Value::Number(_))) => format!("`{value}`"),
            _ => String::new(),
        }
    }
}

const INTRODUCTION: &str = "\
# Configuration

<!-- Made by `kubeboot config docs > docs/configuration.md` from the types and tables that read configurations; do not edit. -->

A file of `--config` holds one or more of these documents, as YAML, separated by `---`, or as JSON. Each begins with its
`apiVersion` and `kind`, and no kind may come twice. A command reads the kinds that are for it and warns of the others.
`kubeboot config print init-defaults` prints the defaults, `kubeboot config validate` checks a file, `kubeboot config
migrate` makes v1beta4 of v1beta3, and `kubeboot config schema --kind KIND` prints a kind's JSON schema.

## How a file is read

- Unknown and repeated fields, wrong types and impossible values are errors. All are reported at once, each with file,
  line, column and field.
- Values are what they are to Kubernetes: `yes`, `no`, `on`, `off`, `y` and `n` are booleans, `0644` is 420 and `1e3` is
  1000. A field that takes a string takes no bare number or boolean: put it in quotes.
- Durations are Go's: `24h0m0s`, `90s`, `1h30m`.
- Anchors, aliases and merge keys (`<<`) work, up to a limit. Nesting goes 32 levels deep.
- A field that is null is as one that is not there; only `taints` tells the two from an empty list.
- `--config` excludes the flags that say the same as a field. `--node-name`, `--dry-run` and flags that begin with `--skip-` replace
  what the file says, and `--ignore-preflight-errors` adds to it.
- `kubeadm.k8s.io/v1beta3` is read with a warning.
- `KubeletConfiguration` (`kubelet.config.k8s.io/v1beta1`) and `KubeProxyConfiguration` (`kubeproxy.config.k8s.io/v1alpha1`)
  are passed on as they are, with defaults for what they do not say.
";

/// The reference of these kinds in Markdown.
///
/// # Errors
/// None: the defaults are valid.
pub fn markdown() -> Result<String, ConfigError> {
    let mut text = INTRODUCTION.to_owned();
    text.push_str("\n## Feature gates\n\n| Gate | State |\n|---|---|\n");
    for (name, state) in gate_rows() {
        text.push_str(&format!("| `{name}` | {state} |\n"));
    }
    for row in KINDS {
        text.push_str(&format!("\n## {}\n\n`apiVersion: {}`. {}\n\n", row.kind, row.api_version, row.about));
        text.push_str("| Field | Type | Default | Meaning |\n|---|---|---|---|\n");
        for field in fields(row)? {
            let about = field.about.replace('|', "\\|");
            text.push_str(&format!("| `{}` | {} | {} | {about} |\n", field.path, field.of, field.default));
        }
    }
    Ok(text)
}

fn fields(row: &Row) -> Result<Vec<Field>, ConfigError> {
    let documents = [defaults::init()?, defaults::join("node")?, defaults::reset()?, defaults::upgrade()?].concat();
    let own = serde_json::to_value(KubebootSpec::default()).unwrap_or_else(|_| Value::Object(Map::new()));
    let defaults = match row.kind {
        KUBEBOOT_KIND => Some(&own),
        kind => documents.iter().find(|document| document["kind"] == kind),
    };
    Ok(walk(row, defaults.unwrap_or(&Value::Null)))
}

fn walk(row: &Row, defaults: &Value) -> Vec<Field> {
    let schema = (row.schema)().to_value();
    let mut walk = Walk { defs: &schema["$defs"], defaults, fields: Vec::new() };
    walk.object(&schema, "");
    walk.fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_described() {
        for row in KINDS {
            for field in fields(row).unwrap() {
                assert!(!field.about.is_empty() && field.of != "any", "{}: {}", row.kind, field.path);
            }
        }
    }

    #[test]
    fn the_reference_has_fields_of_every_depth_with_types_and_defaults() {
        let text = markdown().unwrap();
        for line in [
            "| `nodeAgent` | embedded, kubelet | `embedded` | Who runs the static pods. |",
            "| `localAPIEndpoint.bindPort` | integer | `6443` | Port of the API server. |",
            "| `timeouts.discovery` | duration | `5m0s` | How long a joining node may look for the cluster. |",
            "| `etcd.local.extraArgs[].name` | string |  | Without dashes. |",
            "| `featureGates` | map of boolean |  | kubeadm's feature gates. |",
            "| `bootstrapTokens[].ttl` | duration | `24h0m0s` | How long it lives; `0s` for ever. Excludes `expires`. |",
            "| `controlPlane.localAPIEndpoint.bindPort` | integer |  | Port of the API server. |",
            "| `apply.etcdUpgrade` | boolean | `true` | Upgrade etcd too. |",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("abcdef") && !text.contains("1.2.3.4"), "a placeholder is no default");
    }

    #[test]
    fn a_schema_names_its_kind_and_knows_no_other_field() {
        let schema = schema(KUBEBOOT_KIND).unwrap();
        assert_eq!(schema["properties"]["kind"]["const"], KUBEBOOT_KIND);
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"]["nodeAgent"]["default"], "embedded");
        assert!(super::schema("Pod").is_none());
        assert_eq!(kinds().count(), kinds().filter(|kind| super::schema(kind).is_some()).count());
    }
}
