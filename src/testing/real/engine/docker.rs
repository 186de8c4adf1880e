//! Docker, as `docker` tells of it.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Action, Engine, Event, Look, Parse, block};
use crate::runtime::{ContainerRuntime, docker, labels};
use crate::testing::real::command::run;
use crate::testing::real::image;

/// A Docker daemon.
pub struct Docker {
    /// Its DOCKER_HOST; None for the machine's own.
    host: Option<String>,
}

impl Docker {
    /// The daemon at an address.
    pub fn at(host: Option<String>) -> Self {
        Self { host }
    }

    /// `docker ARGS`, which must succeed, and what it printed.
    fn docker(&self, args: &[&str]) -> String {
        run("docker", &self.args(args)).ok().trim().to_owned()
    }

    fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        let host = self.host.as_deref();
        host.map(|host| ["-H", host]).into_iter().flatten().chain(args.iter().copied()).collect()
    }
}

fn label(owner: &str) -> String {
    format!("{}={owner}", labels::OWNER)
}

fn filter(owner: &str) -> String {
    format!("label={}", label(owner))
}

impl Engine for Docker {
    fn scheme(&self) -> &'static str {
        "docker"
    }

    fn flags(&self) -> Vec<String> {
        self.host.iter().map(|host| format!("--docker-host={host}")).collect()
    }

    fn client(&self) -> Arc<dyn ContainerRuntime> {
        Arc::new(docker::Docker::connect(self.host.as_deref()).unwrap())
    }

    fn take_images(&self) {
        match &self.host {
            Some(host) => block(image::build(&docker::Docker::connect(Some(host)).unwrap())),
            None => drop(block(image::docker())),
        }
    }

    fn running(&self, owner: &str) -> BTreeMap<String, bool> {
        let format = "--format={{.ID}} {{.State}}";
        let all = self.docker(&["ps", "-a", "--no-trunc", "--filter", &filter(owner), format]);
        let states = all.lines().filter_map(|line| line.split_once(' '));
        states.map(|(id, state)| (id.to_owned(), state == "running")).collect()
    }

    fn look(&self, id: &str) -> Look {
        let all: Value = serde_json::from_str(&self.docker(&["inspect", id])).unwrap();
        let text = |path: &str| all[0].pointer(path).and_then(Value::as_str).unwrap().to_owned();
        let env = all[0]["Config"]["Env"].as_array().into_iter().flatten();
        let pid = all[0]["State"]["Pid"].as_u64().unwrap();
        Look {
            running: all[0]["State"]["Running"] == true,
            pid: u32::try_from(pid).unwrap(),
            name: text("/Name").trim_start_matches('/').to_owned(),
            env: env.map(|one| one.as_str().unwrap().to_owned()).collect(),
            log: text("/LogPath").into(),
        }
    }

    fn kill(&self, id: &str) {
        self.docker(&["kill", id]);
    }

    fn remove(&self, id: &str) {
        self.docker(&["rm", "-f", id]);
    }

    fn exec(&self, id: &str, command: &[&str]) -> String {
        self.docker(&[&["exec", id], command].concat())
    }

    fn events(&self, owner: &str) -> (Command, Parse) {
        let mut command = Command::new("docker");
        command.args(self.args(&["events", "--filter", &filter(owner), "--format={{json .}}"]));
        (command, Box::new(|line| event(&serde_json::from_str(line).unwrap())))
    }

    fn mark(&self, owner: &str) -> String {
        let id = self.docker(&["create", "--label", &label(owner), image::IMAGE]);
        self.docker(&["rm", &id]);
        id
    }

    fn clear(&self, owner: &str) {
        // An agent that has been told to end may be making one.
        for _ in 0..10 {
            let listed = run("docker", &self.args(&["ps", "-aq", "--filter", &filter(owner)])).stdout;
            let ids: Vec<&str> = listed.split_whitespace().collect();
            if ids.is_empty() {
                break;
            }
            run("docker", &self.args(&[&["rm", "-fv"], ids.as_slice()].concat()));
        }
    }
}

fn event(value: &Value) -> Option<Event> {
    let text = |path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let action = match text("/Action").filter(|_| text("/Type").as_deref() == Some("container"))?.as_str() {
        "create" => Action::Create,
        "start" => Action::Start,
        "die" => Action::Die,
        "destroy" => Action::Destroy,
        _ => return None,
    };
    Some(Event {
        id: text("/Actor/ID")?,
        action,
        name: text("/Actor/Attributes/name")?,
        code: text("/Actor/Attributes/exitCode").and_then(|code| code.parse().ok()),
        at: Duration::from_nanos(value.pointer("/timeNano").and_then(Value::as_u64)?),
    })
}
