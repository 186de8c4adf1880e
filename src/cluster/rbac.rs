//! Roles and bindings, in one line each.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::api::ObjectMeta;

/// The API group of roles.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Nodes that are joining.
pub const JOINING: (&str, &str) = ("Group", crate::config::bootstrap_token::NODE_GROUP);
/// Nodes that have joined.
pub const NODES: (&str, &str) = ("Group", "system:nodes");

/// Kind (`Group`, `User`) and name of who gets a right.
pub type Who = (&'static str, &'static str);

fn subject(who: &Who) -> Subject {
    Subject { api_group: Some(GROUP.into()), kind: who.0.into(), name: who.1.into(), namespace: None }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: Some(GROUP.into()), kind: kind.into(), name: name.into() }
}

fn metadata(namespace: Option<&str>, name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.into()), namespace: namespace.map(str::to_owned), ..ObjectMeta::default() }
}

fn rule(resource: &str, names: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec![resource.into()]),
        resource_names: Some(names.iter().map(|name| (*name).to_owned()).collect()).filter(|_| !names.is_empty()),
        verbs: vec!["get".into()],
        non_resource_urls: None,
    }
}

/// A Role to get one object of the core group (`configmaps`, `secrets`), and a RoleBinding of the same name.
pub fn reading(namespace: &str, name: &str, (resource, object): (&str, &str), who: &[Who]) -> (Role, RoleBinding) {
    let role = Role { metadata: metadata(Some(namespace), name), rules: Some(vec![rule(resource, &[object])]) };
    let binding = RoleBinding {
        metadata: metadata(Some(namespace), name),
        role_ref: role_ref("Role", name),
        subjects: Some(who.iter().map(subject).collect()),
    };
    (role, binding)
}

/// A ClusterRole to get any object of a resource of the core group.
pub fn getting(name: &str, resource: &str) -> ClusterRole {
    ClusterRole { metadata: metadata(None, name), rules: Some(vec![rule(resource, &[])]), aggregation_rule: None }
}

/// A ClusterRoleBinding.
pub fn bind(name: &str, role: &str, who: Who) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: metadata(None, name),
        role_ref: role_ref("ClusterRole", role),
        subjects: Some(vec![subject(&who)]),
    }
}
