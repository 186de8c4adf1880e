//! `featureGates` and `--feature-gates`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::agent::options::agent_options::AgentOptions;
use crate::agent::options::flag_value;
use crate::agent::options::gates::{FIELD, GATES};
use crate::agent::options::given::Flags;
use crate::agent::options::kubelet_config::KubeletConfiguration;

/// Follows the gates of the file, those of flags over them. One that is set goes over that of its stage. Returns the names
/// of those that mean nothing here.
pub(super) fn follow(options: &mut AgentOptions, flags: &Flags, file: &KubeletConfiguration) -> Vec<String> {
    let mut given: BTreeMap<String, bool> = file.feature_gates.clone().unwrap_or_default();
    let by_flags: BTreeMap<String, bool> = flags.feature_gates.iter().flat_map(|text| pairs(text)).collect();
    if !by_flags.is_empty() {
        given.extend(by_flags);
        // What is read there goes over the defaults of a kubelet that is given it as its configuration.
        options
            .written
            .insert(FIELD.to_owned(), given.iter().map(|(name, on)| (name.clone(), json!(on))).collect::<Value>());
    }
    for (name, stage, set) in GATES {
        if let Some(on) = given.get(name).or_else(|| given.get(stage)) {
            set(&mut options.gates, *on);
        }
    }
    let means_something = |name: &String| GATES.iter().any(|(gate, stage, _)| name == gate || name == stage);
    given.into_keys().filter(|name| !means_something(name)).collect()
}

/// `Name=true,Other=false`, which has been read once.
fn pairs(text: &str) -> impl Iterator<Item = (String, bool)> {
    text.split(',').filter_map(|part| {
        let (name, on) = part.split_once('=')?;
        Some((name.trim().to_owned(), flag_value::boolean(on.trim()).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::options::gates::Gates;
    use crate::agent::options::{ConfigFile, Resolved, resolve};

    /// With `featureGates` of a file, in YAML, and `--feature-gates`.
    fn resolved(file: &str, flag: &str) -> Resolved {
        let text = format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nstaticPodPath: /m\nfeatureGates: {file}\n"
        );
        let flags = Flags::read([("feature-gates", flag)]).unwrap();
        resolve(&flags, &[ConfigFile::main("/c.yaml".into(), text)], "n").unwrap()
    }

    #[test]
    fn gates_are_those_of_1_36_until_the_file_or_a_flag_sets_them() {
        let of = |file: &str, flag: &str| resolved(file, flag).options.gates;
        let with = |change: fn(&mut Gates)| {
            let mut gates = Gates::default();
            change(&mut gates);
            gates
        };
        assert_eq!(of("{}", ""), Gates { pods_api: false, flagz: true, statusz: true });
        assert_eq!(of("{PodsAPI: true}", ""), with(|gates| gates.pods_api = true));
        assert_eq!(of("{PodsAPI: true}", "PodsAPI=false"), Gates::default());
        assert_eq!(of("{}", "PodsAPI=true,ComponentFlagz=f"), Gates { pods_api: true, flagz: false, statusz: true });
        assert_eq!(of("{AllAlpha: true}", ""), with(|gates| gates.pods_api = true));
        assert_eq!(of("{AllAlpha: true, PodsAPI: false}", ""), Gates::default());
        assert_eq!(of("{}", "AllBeta=false"), Gates { pods_api: false, flagz: false, statusz: false });
    }

    #[test]
    fn gates_that_mean_nothing_are_named_and_all_of_them_are_written_back() {
        let found = resolved("{PodsAPI: true, SidecarContainers: true}", "NodeSwap=false, PodsAPI=false");
        assert_eq!(found.notes, ["these feature gates mean nothing to this agent: NodeSwap, SidecarContainers"]);
        let written = json!({"NodeSwap": false, "PodsAPI": false, "SidecarContainers": true});
        assert_eq!(found.options.written[FIELD], written);
        let error = Flags::read([("feature-gates", "PodsAPI=maybe")]).unwrap_err();
        assert_eq!(error[0].to_string(), "--feature-gates is \"PodsAPI=maybe\": PodsAPI: must be true or false");
    }
}
