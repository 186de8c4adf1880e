//! What `init` would do.

use std::path::Path;

use jiff::Timestamp;

use super::files::Input;
use super::generated_secrets::GeneratedSecrets;
use super::{InitError, PHASES, PhaseSelection, failure, objects, resolved};
use crate::config::ClusterSpec;
use crate::host::{Paths, environment};
use crate::workflow::dry_run::DryRun;

/// Goes through `what` in memory, above what is on the machine.
///
/// # Errors
/// What would stop `init` too: phases that do not exist, patches that do not apply, certificates that do not fit.
pub fn rehearse(spec: &ClusterSpec, what: &PhaseSelection, paths: &Paths, program: &Path) -> Result<DryRun, InitError> {
    let proxy_env = environment::proxies();
    let input = Input { spec, proxy_env: &proxy_env, program, now: Timestamp::now() };
    let selected = resolved(what.of(&PHASES, &spec.skip_phases, None)?)?;
    let generated_secrets = GeneratedSecrets::new(spec).map_err(|source| failure("preflight", source))?;
    let mut run = DryRun::above(paths);
    for one in &selected {
        let phase = one.phase.name;
        if let Some(write) = one.phase.work.files {
            let said = run.files(|tree| write(&input, &one.children, tree)).map_err(|e| failure(phase, e))?;
            said.warnings.into_iter().for_each(|text| run.warn(phase, text));
        }
        if let Some(make) = one.phase.work.objects {
            let (tree, now) = (run.tree(), input.now);
            let input =
                objects::Input { spec, tree, generated_secrets: &generated_secrets, proxy_env: &proxy_env, now };
            let made = make(&input, &one.children).map_err(|source| failure(phase, source))?;
            made.warnings.into_iter().for_each(|text| run.warn(phase, text));
            run.apply(made.objects);
        }
        let would = one.phase.work.would.map(|would| would(spec)).unwrap_or_default();
        would.into_iter().for_each(|text| run.would(phase, text));
    }
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::listing;

    fn rehearsal(root: &Path) -> DryRun {
        let program = Path::new("/usr/local/bin/kubeboot");
        rehearse(&crate::testing::spec(), &PhaseSelection::Everything, &Paths::new(root), program).unwrap()
    }

    #[test]
    fn everything_is_shown_but_secrets_and_nothing_is_written() {
        let root = tempfile::tempdir().unwrap();
        let rehearsal = rehearsal(root.path());
        let text = rehearsal.text();
        for file in ["pki/ca.crt", "pki/etcd/peer.key", "admin.conf", "manifests/kube-scheduler.yaml"] {
            let line = format!("[dryrun] Would write file \"/etc/kubernetes/{file}\" with content:\n");
            assert!(text.contains(&line), "{line} in\n{text}");
        }
        assert!(text.contains("[wait-control-plane] Would wait for etcd, kube-apiserver"), "{text}");
        assert!(text.contains("\tkind: Pod\n"));
        for resource in ["configmaps", "secrets", "rolebindings", "clusterroles", "nodes"] {
            assert!(text.contains(&format!(" on resource \"{resource}\" in API group")), "{resource}");
        }
        assert!(text.contains("\t  token-secret: <withheld>\n"), "{text}");
        let json = serde_json::to_string(&rehearsal.shown()).unwrap();
        for text in [text, json] {
            // The beginning of a PEM block, as it is and in base64.
            assert!(!text.contains("PRIVATE KEY") && !text.contains("LS0tLS1CRUdJTiBQUklWQVRFIEtF"));
            assert!(
                !text.contains("LS0tLS1CRUdJTiBFQyBQUklWQVRF") && !text.contains("LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBL")
            );
        }
        assert_eq!(listing(root.path()), Vec::<String>::new());
    }

    #[test]
    fn below_a_directory_everything_is_written_with_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let (root, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dir = out.path().join("new");
        let count = rehearsal(root.path()).write_below(&dir).unwrap();
        let files = listing(&dir).iter().filter(|path| !path.ends_with('/')).count();
        assert_eq!(files, count);
        let mode = |path| std::fs::metadata(dir.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("etc/kubernetes/pki/ca.key"), mode("etc/kubernetes/pki/ca.crt")), (0o600, 0o644));
        assert_eq!(listing(root.path()), Vec::<String>::new());
        rehearsal(root.path()).write_below(Path::new("/")).unwrap_err();
    }
}
