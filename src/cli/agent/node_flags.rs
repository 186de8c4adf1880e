//! Flags of `kubeboot agent` about the API server and the Node there.

use std::path::PathBuf;

use clap::ArgAction;

use crate::agent::options::NodeFlags;

/// See the module.
#[derive(Debug, clap::Args)]
pub struct NodeArgs {
    /// Credentials for the API server, waited for if not there; without it the agent knows no cluster
    #[arg(long, value_name = "FILE", help_heading = "Cluster options")]
    pub kubeconfig: Option<PathBuf>,
    /// Credentials to ask for a first client certificate with, while --kubeconfig is not there
    #[arg(long, value_name = "FILE", help_heading = "Cluster options")]
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Directory of certificates that the cluster has signed [default: pki in the root directory]
    #[arg(long, value_name = "DIR", help_heading = "Cluster options")]
    pub cert_dir: Option<PathBuf>,
    /// Address of the node, or one of each family
    #[arg(long, value_name = "IP", help_heading = "Cluster options")]
    node_ip: Option<String>,
    /// Labels of the Node: name=value,name2=value2
    #[arg(long, value_name = "LABELS", action = ArgAction::Append, help_heading = "Cluster options")]
    node_labels: Vec<String>,
    /// Make the Node if there is none [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Cluster options")]
    register_node: Option<bool>,
    /// Taints it is made with: key=value:effect,...
    #[arg(long, value_name = "TAINTS", action = ArgAction::Append, help_heading = "Cluster options")]
    register_with_taints: Vec<String>,
    /// How often its status is computed [default: 10s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, help_heading = "Cluster options")]
    node_status_update_frequency: Option<String>,
    /// The most images in its status, -1 for all [default: 50]
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = "Cluster options")]
    node_status_max_images: Option<i64>,
    /// The most pods of the node, as its status says [default: 110]
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = "Cluster options")]
    max_pods: Option<i64>,
    /// What pods cannot have: cpu=100m,memory=1Gi
    #[arg(long, value_name = "RESOURCES", help_heading = "Cluster options")]
    system_reserved: Option<String>,
    /// What pods cannot have besides
    #[arg(long, value_name = "RESOURCES", help_heading = "Cluster options")]
    kube_reserved: Option<String>,
    /// The machine's name at its cloud
    #[arg(long, value_name = "ID", help_heading = "Cluster options")]
    provider_id: Option<String>,
    /// Renew the client certificate before it expires [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Cluster options")]
    rotate_certificates: Option<bool>,
    /// Ask the cluster for the serving certificate [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Cluster options")]
    rotate_server_certificates: Option<bool>,
}

impl From<NodeArgs> for NodeFlags {
    fn from(args: NodeArgs) -> Self {
        Self {
            kubeconfig: args.kubeconfig,
            bootstrap_kubeconfig: args.bootstrap_kubeconfig,
            cert_dir: args.cert_dir,
            node_ip: args.node_ip,
            node_labels: args.node_labels,
            register_node: args.register_node,
            register_with_taints: args.register_with_taints,
            node_status_update_frequency: args.node_status_update_frequency,
            node_status_max_images: args.node_status_max_images,
            max_pods: args.max_pods,
            system_reserved: args.system_reserved,
            kube_reserved: args.kube_reserved,
            provider_id: args.provider_id,
            rotate_certificates: args.rotate_certificates,
            rotate_server_certificates: args.rotate_server_certificates,
        }
    }
}
