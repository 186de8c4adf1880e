//! What a pod asks for and may use as a whole (`validatePodResources`).

use k8s_openapi::api::core::v1::PodSpec;

use super::{Problems, containers};
use crate::agent::pod::resources::{amount, is_of_pods, of_containers, unit};

/// Checks `spec.resources` by themselves and against what the containers have.
pub(super) fn resources(spec: &PodSpec, problems: &mut Problems) {
    let Some(own) = &spec.resources else { return };
    let known = (is_of_pods as fn(&str) -> bool, "a pod as a whole has cpu, memory and hugepages-SIZE alone");
    containers::requirements("spec.resources", own, known, problems);
    for (name, value) in own.requests.iter().flatten().filter(|(name, _)| is_of_pods(name)) {
        let less = unit(name)(value).is_some_and(|own| own < of_containers(spec, false, name, unit(name)));
        let field = format!("spec.resources.requests.{name}");
        problems.refuse(less, &field, "must not be less than what the containers request together");
    }
    for (name, value) in own.limits.iter().flatten().filter(|(name, _)| is_of_pods(name)) {
        for (index, container) in spec.containers.iter().enumerate() {
            let more = unit(name)(value).is_some_and(|own| amount(container, true, name, unit(name)) > own);
            let field = format!("spec.containers[{index}].resources.limits.{name}");
            problems.refuse(more, &field, "must not be more than the limit of the pod");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::agent::container::env::Facts;
    use crate::agent::pod::downward;
    use crate::agent::pod::tests::read;

    /// A pod with these resources of its own and of its container `a`, beside another container that has none.
    fn text(own: &str, a: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  resources: {own}\n  containers:\n  \
             - {{name: a, image: 'x:1', resources: {a}}}\n  - {{name: b, image: 'x:1'}}\n"
        )
    }

    #[test]
    fn resources_of_a_pod_are_refused_where_they_are_none_or_its_containers_do_not_fit_into_them() {
        let rows = [
            ("{limits: {memory: 1Gb}}", "{}", "spec.resources.limits.memory: \"1Gb\" is not a quantity"),
            ("{limits: {ephemeral-storage: 1Gi}}", "{}", "spec.resources.limits.ephemeral-storage: a pod as a whole"),
            ("{requests: {cpu: '-1'}}", "{}", "spec.resources.requests.cpu: must not be negative"),
            (
                "{requests: {cpu: '2'}, limits: {cpu: '1'}}",
                "{}",
                "spec.resources.requests.cpu: must not be more than the limit",
            ),
            ("{claims: [{name: x}]}", "{}", "spec.resources.claims: a static pod may not"),
            (
                "{requests: {cpu: 100m}}",
                "{requests: {cpu: 200m}}",
                "spec.resources.requests.cpu: must not be less than what the containers request together",
            ),
            (
                "{limits: {memory: 1Gi}}",
                "{limits: {memory: 2Gi}, requests: {memory: 1Mi}}",
                "spec.containers[0].resources.limits.memory: must not be more than the limit of the pod",
            ),
        ];
        for (own, a, expected) in rows {
            let refused = read(&text(own, a)).unwrap_err().to_string();
            assert!(refused.contains(expected), "{own} {a}: {refused}");
        }
        read(&text("{requests: {cpu: 200m}, limits: {cpu: 200m, memory: 1Gi}}", "{limits: {cpu: 200m}}")).unwrap();
    }

    #[test]
    fn a_pod_with_limits_asks_for_what_its_containers_do_else_for_as_much_as_it_may_use() {
        for (own, a, expected) in [
            ("{limits: {cpu: '1', memory: 64Mi}}", "{requests: {cpu: 100m}}", r#"{"cpu":"100m","memory":"64Mi"}"#),
            ("{limits: {cpu: '1'}}", "{requests: {memory: 32Mi}}", r#"{"cpu":"1","memory":"32Mi"}"#),
            ("{limits: {cpu: '1'}, requests: {cpu: 300m}}", "{requests: {cpu: 100m}}", r#"{"cpu":"300m"}"#),
            ("{requests: {cpu: 300m}}", "{requests: {cpu: 100m, memory: 1Mi}}", r#"{"cpu":"300m"}"#),
        ] {
            let pod = read(&text(own, a)).unwrap();
            let requests = pod.spec.resources.unwrap().requests.unwrap();
            assert_eq!(serde_json::to_string(&requests).unwrap(), expected, "{own} {a}");
        }
    }

    #[test]
    fn a_limit_that_a_container_has_not_is_its_pods_to_the_downward_api() {
        let pod = read(&text("{limits: {memory: 64Mi}}", "{limits: {memory: 32Mi}}")).unwrap();
        let facts = Facts { node_memory: 8 << 30, node_cpu_millis: 4000, ..Facts::default() };
        for (container, resource, expected) in
            [("a", "limits.memory", "33554432"), ("b", "limits.memory", "67108864"), ("b", "limits.cpu", "4")]
        {
            let of =
                k8s_openapi::api::core::v1::ResourceFieldSelector { resource: resource.into(), ..Default::default() };
            let said = downward::resource(&pod, pod.container(container), &of, &facts);
            assert_eq!(said.as_deref(), Some(expected), "{container} {resource}");
        }
    }
}
