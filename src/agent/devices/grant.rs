//! What a container gets for its devices: all that their plugins have answered, put together.

use std::collections::BTreeMap;

use tracing::warn;

use super::messages::ContainerAllocateResponse;
use crate::runtime::Env;
use crate::runtime::{Device, Mount, Propagation};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Device files.
    pub devices: Vec<Device>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Names of CDI devices.
    pub cdi_devices: Vec<String>,
}

impl Grant {
    /// Of these answers, by resource. Where two of them say different things the first counts.
    pub fn of(answers: Vec<ContainerAllocateResponse>) -> Self {
        let mut grant = Self::default();
        for answer in answers {
            answer.envs.into_iter().for_each(|(name, value)| add(&mut grant.env, "variable", name, value));
            for (name, value) in answer.annotations {
                add(&mut grant.annotations, "annotation", name, value);
            }
            for one in answer.devices {
                let device = Device {
                    host_path: one.host_path,
                    container_path: one.container_path,
                    permissions: one.permissions,
                };
                let known = grant.devices.iter().find(|other| other.container_path == device.container_path);
                match known.map(|known| (known.host_path.clone(), known.container_path.clone())) {
                    None => grant.devices.push(device),
                    Some((known, path)) => note("device", &path, &known, &device.host_path),
                }
            }
            for one in answer.mounts {
                let known = grant.mounts.iter().find(|other| other.container_path == one.container_path);
                match known.map(|known| known.host_path.clone()) {
                    None => grant.mounts.push(Mount {
                        host_path: one.host_path,
                        container_path: one.container_path,
                        read_only: one.read_only,
                        recursive_read_only: false,
                        propagation: Propagation::Private,
                    }),
                    Some(known) => note("mount", &one.container_path, &known, &one.host_path),
                }
            }
            for one in answer.cdi_devices {
                if !grant.cdi_devices.contains(&one.name) {
                    grant.cdi_devices.push(one.name);
                }
            }
        }
        grant
    }

    /// A container's environment after that of its devices, of which it may say otherwise.
    pub fn environment(&self, own: &Env) -> Env {
        let is_own = |name: &String| own.iter().any(|(known, _)| known == name);
        let of_devices = self.env.iter().filter(|(name, _)| !is_own(name));
        of_devices.map(|(name, value)| (name.clone(), value.clone().into_bytes())).chain(own.iter().cloned()).collect()
    }
}

fn add(map: &mut BTreeMap<String, String>, what: &str, name: String, value: String) {
    match map.get(&name) {
        Some(known) => note(what, &name, known, &value),
        None => drop(map.insert(name, value)),
    }
}

fn note(what: &str, name: &str, known: &str, other: &str) {
    if known != other {
        warn!(name, used = known, left_out = other, "device plugins give a container two of one {what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::devices::messages::{CdiDevice, DeviceSpec, Mount as Given};

    #[test]
    fn answers_are_put_together_and_the_first_of_two_counts() {
        let answer = |value: &str| ContainerAllocateResponse {
            envs: [("A".to_owned(), value.to_owned()), (value.to_owned(), "x".to_owned())].into(),
            mounts: vec![Given { container_path: "/m".into(), host_path: format!("/{value}"), read_only: true }],
            devices: vec![DeviceSpec {
                container_path: "/dev/x".into(),
                host_path: format!("/dev/{value}"),
                permissions: "rw".into(),
            }],
            annotations: [("a".to_owned(), value.to_owned())].into(),
            cdi_devices: vec![CdiDevice { name: "v.com/c=n".into() }, CdiDevice { name: format!("v.com/c={value}") }],
        };
        let grant = Grant::of(vec![answer("one"), answer("two")]);
        let env: Vec<_> = grant.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(env, ["A=one", "one=x", "two=x"]);
        let own: Env = vec![("A".into(), b"own".to_vec())];
        let all: Vec<_> = grant.environment(&own).into_iter().map(|(name, _)| name).collect();
        assert_eq!(all, ["one", "two", "A"], "the container has the last word");
        assert_eq!(
            (grant.mounts.len(), grant.mounts[0].host_path.as_str(), grant.mounts[0].read_only),
            (1, "/one", true)
        );
        assert_eq!((grant.devices.len(), grant.devices[0].host_path.as_str()), (1, "/dev/one"));
        assert_eq!(grant.annotations, [("a".to_owned(), "one".to_owned())].into());
        assert_eq!(grant.cdi_devices, ["v.com/c=n", "v.com/c=one", "v.com/c=two"]);
    }
}
