//! The environment variables that tell a pod of services, as the kubelet makes them (`pkg/kubelet/envvars`). Pure.

use k8s_openapi::api::core::v1::Service;

/// The services that `enableServiceLinks: false` does not take away.
pub const KUBERNETES: (&str, &str) = ("default", "kubernetes");

/// The variables of these services, in their order; of those with an address of the cluster's.
pub fn variables(services: &[Service]) -> Vec<(String, String)> {
    services.iter().flat_map(of).collect()
}

fn of(service: &Service) -> Vec<(String, String)> {
    let (Some(name), Some(spec)) = (service.metadata.name.as_deref(), &service.spec) else { return vec![] };
    let address = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let (Some(first), false) = (ports.first(), matches!(address, "" | "None")) else { return vec![] };
    let prefix = upper(name);
    let mut all = vec![
        (format!("{prefix}_SERVICE_HOST"), address.to_owned()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            all.push((format!("{prefix}_SERVICE_PORT_{}", upper(name)), port.port.to_string()));
        }
    }
    // What Docker's links would say.
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let number = port.port;
        let url = format!("{}://{host}:{number}", protocol.to_lowercase());
        if index == 0 {
            all.push((format!("{prefix}_PORT"), url.clone()));
        }
        let one = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
        all.push((one.clone(), url));
        all.push((format!("{one}_PROTO"), protocol.to_lowercase()));
        all.push((format!("{one}_PORT"), number.to_string()));
        all.push((format!("{one}_ADDR"), address.to_owned()));
    }
    all
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_with_an_address_has_the_kubelets_variables_and_one_without_has_none() {
        let of = |name: &str, spec: serde_json::Value| {
            serde_json::from_value::<Service>(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
        };
        let all = variables(&[
            of("my-db", json!({"clusterIP": "10.96.0.1", "ports": [{"name": "sql-a", "port": 443}]})),
            of("headless", json!({"clusterIP": "None", "ports": [{"port": 1}]})),
            of("external", json!({"type": "ExternalName"})),
            of("six", json!({"clusterIP": "fd00::1", "ports": [{"port": 53, "protocol": "UDP"}]})),
        ]);
        let text: Vec<_> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            text,
            [
                "MY_DB_SERVICE_HOST=10.96.0.1",
                "MY_DB_SERVICE_PORT=443",
                "MY_DB_SERVICE_PORT_SQL_A=443",
                "MY_DB_PORT=tcp://10.96.0.1:443",
                "MY_DB_PORT_443_TCP=tcp://10.96.0.1:443",
                "MY_DB_PORT_443_TCP_PROTO=tcp",
                "MY_DB_PORT_443_TCP_PORT=443",
                "MY_DB_PORT_443_TCP_ADDR=10.96.0.1",
                "SIX_SERVICE_HOST=fd00::1",
                "SIX_SERVICE_PORT=53",
                "SIX_PORT=udp://[fd00::1]:53",
                "SIX_PORT_53_UDP=udp://[fd00::1]:53",
                "SIX_PORT_53_UDP_PROTO=udp",
                "SIX_PORT_53_UDP_PORT=53",
                "SIX_PORT_53_UDP_ADDR=fd00::1",
            ]
        );
    }
}
