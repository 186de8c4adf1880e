//! `kubeboot agent logs`.

use std::process::ExitCode;

use anyhow::{Context, bail};
use jiff::Timestamp;

use super::ask::{Socket, answered, find};
use crate::agent::control::log::LogRequest;
use crate::agent::control::{self, PodView};
use crate::cli::Globals;
use crate::cli::failure::Hint;
use crate::config::GoDuration;
use crate::ui;

/// Annotation: the container that is meant where none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Print the log of a container
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kubeboot agent logs etcd\n  \
    kubeboot agent logs -f --tail 20 kube-system/kube-apiserver\n  \
    kubeboot agent logs --previous web -c main\n\n\
    Exit codes: 0 the log has ended, 1 any error.")]
pub struct Args {
    /// The pod, with or without the node's name behind it; NAMESPACE/NAME where several have the name
    #[arg(value_name = "POD")]
    pod: String,
    /// The container, where the pod has more than one
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Go on with what is written, until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Print the log of the instance before
    #[arg(short, long)]
    previous: bool,
    /// Begin this many lines before the end; -1 prints all
    #[arg(long, value_name = "LINES", allow_hyphen_values = true, default_value_t = -1, hide_default_value = true)]
    tail: i64,
    /// Print only what is newer (5s, 2m, 3h)
    #[arg(long, value_name = "DURATION")]
    since: Option<GoDuration>,
    /// Begin each line with when it was written
    #[arg(long)]
    timestamps: bool,
    /// Print no more bytes than this
    #[arg(long, value_name = "BYTES")]
    limit_bytes: Option<u64>,
    #[command(flatten)]
    socket: Socket,
}

/// Prints the log as it comes.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let socket = args.socket.path(globals);
    let pods = answered(control::pods(&socket).await)?.pods;
    let view = find(&pods, &args.pod)?;
    let container = match &args.container {
        Some(container) => known(view, container)?,
        None => default(view)?,
    };
    let since = args.since.and_then(GoDuration::to_std).map(|ago| Timestamp::now().checked_sub(ago)).transpose()?;
    let wanted = LogRequest {
        namespace: view.report.namespace.clone(),
        pod: view.report.name.clone(),
        container,
        previous: args.previous,
        follow: args.follow,
        timestamps: args.timestamps,
        since,
        tail: u64::try_from(args.tail).ok(),
        limit_bytes: args.limit_bytes,
    };
    let mut log = answered(control::logs(&socket, &wanted).await)?;
    while let Some(bytes) = log.next().await? {
        if !ui::print_bytes(&bytes)? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn names(view: &PodView) -> Vec<&str> {
    view.report.containers.iter().map(|c| c.name.as_str()).collect()
}

fn known(view: &PodView, container: &str) -> anyhow::Result<String> {
    if names(view).contains(&container) {
        return Ok(container.to_owned());
    }
    let hint = Hint::new(format!("its containers are {}", names(view).join(", ")));
    Err(anyhow::anyhow!("pod {} has no container {container}", view.report.name)).context(hint)
}

/// The container the manifest names, else the only one that is no init container.
fn default(view: &PodView) -> anyhow::Result<String> {
    let annotated = view.pod.metadata.annotations.as_ref().and_then(|all| all.get(DEFAULT_CONTAINER));
    if let Some(annotated) = annotated.filter(|name| names(view).contains(&name.as_str())) {
        return Ok(annotated.clone());
    }
    let mut main = view.report.containers.iter().filter(|c| !c.init);
    match (main.next(), main.next()) {
        (Some(only), None) => Ok(only.name.clone()),
        (None, _) => bail!("pod {} has no containers yet", view.report.name),
        _ => {
            let hint = Hint::new(format!("choose one of {} with --container", names(view).join(", ")));
            Err(anyhow::anyhow!("pod {} has several containers", view.report.name)).context(hint)
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::testing::report::{container, pod};

    #[test]
    fn the_only_container_is_meant_and_of_several_the_one_that_is_named() {
        let mut view = PodView { pod: Pod::default(), report: pod("web", "hash") };
        view.report
            .containers
            .insert(0, crate::agent::control::report::ContainerReport { init: true, ..container("init") });
        assert_eq!(default(&view).unwrap(), "web");
        assert_eq!(known(&view, "init").unwrap(), "init");
        let unknown = known(&view, "other").unwrap_err();
        assert!(unknown.downcast_ref::<Hint>().unwrap().to_string().contains("init, web"));
        view.report.containers.push(container("side"));
        assert!(default(&view).unwrap_err().downcast_ref::<Hint>().unwrap().to_string().contains("--container"));
        let annotations = [(DEFAULT_CONTAINER.to_owned(), "side".to_owned())];
        view.pod.metadata.annotations = Some(annotations.into_iter().collect());
        assert_eq!(default(&view).unwrap(), "side");
    }
}
