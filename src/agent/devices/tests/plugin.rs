//! A device plugin in the process of the test, at a socket of its own.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;

use crate::agent::context::Context;
use crate::agent::devices::messages::*;
use crate::agent::devices::{Amounts, listen, serve};
use crate::agent::rpc::{self, Service};
use crate::host::socket;
use crate::runtime::cri::rpc::Rpc;

/// See the module.
pub struct FakePlugin {
    options: DevicePluginOptions,
    calls: Mutex<Vec<String>>,
    failing: Mutex<BTreeSet<&'static str>>,
    /// What is listed; the words of its failure at last.
    lists: watch::Sender<Result<Vec<Device>, String>>,
    end: CancellationToken,
}

/// Devices by id, with their health.
pub fn devices(all: &[(&str, bool)]) -> Vec<Device> {
    let health = |is: bool| if is { HEALTHY } else { "Unhealthy" }.to_owned();
    all.iter().map(|(id, is)| Device { id: (*id).to_owned(), health: health(*is), topology: None }).collect()
}

impl FakePlugin {
    /// Has these healthy devices.
    pub fn new(ids: &[&str]) -> Self {
        let all: Vec<(&str, bool)> = ids.iter().map(|id| (*id, true)).collect();
        Self {
            options: DevicePluginOptions::default(),
            calls: Mutex::default(),
            failing: Mutex::default(),
            lists: watch::Sender::new(Ok(devices(&all))),
            end: CancellationToken::new(),
        }
    }

    pub fn with(mut self, options: DevicePluginOptions) -> Self {
        self.options = options;
        self
    }

    /// From now on this method fails.
    pub fn fail(&self, method: &'static str) {
        self.failing.lock().unwrap().insert(method);
        if method == "ListAndWatch" {
            let _ = self.lists.send_replace(Err("ListAndWatch failed".to_owned()));
        }
    }

    /// From now on it has these.
    pub fn set(&self, all: &[(&str, bool)]) {
        let _ = self.lists.send_replace(Ok(devices(all)));
    }

    /// Its process ends.
    pub fn stop(&self) {
        self.end.cancel();
    }

    /// What it was asked, in order: the method, and devices.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn called(&self, method: &'static str, with: &[String]) -> Result<(), Status> {
        self.calls.lock().unwrap().push([&[method.to_owned()], with].concat().join(" "));
        match self.failing.lock().unwrap().contains(method) {
            true => Err(Status::unknown(format!("{method} failed"))),
            false => Ok(()),
        }
    }

    /// Listens in the directory of the kubelet's socket and registers there, as the e2e tests' plugin does.
    pub async fn register(self: &Arc<Self>, dir: &Path, endpoint: &str, resource: &str) -> Result<(), Status> {
        let listener = socket::bind(&dir.join(endpoint), 0o750).await.unwrap();
        tokio::spawn(rpc::serve(listener, Arc::clone(self), self.end.clone()));
        let asked = RegisterRequest {
            version: VERSION.to_owned(),
            endpoint: endpoint.to_owned(),
            resource_name: resource.to_owned(),
            options: None,
        };
        register(dir, asked).await
    }
}

/// Has a plugin with these devices register at an agent, and waits until it knows them.
pub async fn plugged(context: &Context, ids: &[&str], resource: &str) -> Arc<FakePlugin> {
    let devices = &context.devices;
    let listener = listen(devices).await.unwrap();
    tokio::spawn(serve(listener, Arc::clone(devices), context.shutdown.clone()));
    let (plugin, mut changes) = (Arc::new(FakePlugin::new(ids)), devices.changes());
    let dir = context.options.root_dir.join("device-plugins");
    plugin.register(&dir, "p.sock", resource).await.unwrap();
    let all = Amounts { capacity: ids.len(), allocatable: ids.len() };
    while devices.amounts().await.get(resource) != Some(&all) {
        changes.changed().await.unwrap();
    }
    plugin
}

/// Registers a plugin.
pub async fn register(dir: &Path, asked: RegisterRequest) -> Result<(), Status> {
    let kubelet = Rpc::new(&format!("unix://{}", dir.join("kubelet.sock").display())).unwrap();
    kubelet.unary("/v1beta1.Registration/Register", asked, None).await.map(|Empty {}| ())
}

impl Service for FakePlugin {
    const NAME: &'static str = "v1beta1.DevicePlugin";

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        match path.strip_prefix(PLUGIN) {
            Some("GetDevicePluginOptions") => {
                rpc::unary(request, async |Empty {}| {
                    self.called("GetDevicePluginOptions", &[])?;
                    Ok(self.options)
                })
                .await
            }
            Some("ListAndWatch") => {
                let watch = tower::service_fn(|_: tonic::Request<Empty>| {
                    let called = self.called("ListAndWatch", &[]);
                    let lists = self.lists.subscribe();
                    let until = self.end.clone().cancelled_owned();
                    async move {
                        called?;
                        let lists = futures::stream::unfold((lists, true), async |(mut lists, first)| {
                            if !first {
                                lists.changed().await.ok()?;
                            }
                            let list = lists.borrow_and_update().clone();
                            let list = list.map(|devices| ListAndWatchResponse { devices });
                            Some((list.map_err(Status::unknown), (lists, false)))
                        });
                        Ok(tonic::Response::new(lists.take_until(until).boxed()))
                    }
                });
                Grpc::new(ProstCodec::default()).server_streaming(watch, request).await
            }
            Some("Allocate") => {
                rpc::unary(request, async |asked: AllocateRequest| {
                    let ids = &asked.container_requests[0].devices_ids;
                    self.called("Allocate", ids)?;
                    Ok(AllocateResponse { container_responses: vec![answer(ids)] })
                })
                .await
            }
            Some("PreStartContainer") => {
                rpc::unary(request, async |asked: PreStartContainerRequest| {
                    self.called("PreStartContainer", &asked.devices_ids)?;
                    Ok(Empty {})
                })
                .await
            }
            Some("GetPreferredAllocation") => {
                rpc::unary(request, async |asked: PreferredAllocationRequest| {
                    let one = &asked.container_requests[0];
                    self.called("GetPreferredAllocation", &one.available_device_ids)?;
                    // The last ones, where others would be given the first.
                    let size = usize::try_from(one.allocation_size).unwrap();
                    let device_ids = one.available_device_ids.iter().rev().take(size).cloned().collect();
                    let container_responses = vec![ContainerPreferredAllocationResponse { device_ids }];
                    Ok(PreferredAllocationResponse { container_responses })
                })
                .await
            }
            _ => rpc::unimplemented(Self::NAME, &path),
        }
    }
}

/// What a container with these devices gets.
fn answer(ids: &[String]) -> ContainerAllocateResponse {
    let device = |id: &String| DeviceSpec {
        container_path: format!("/dev/{id}"),
        host_path: format!("/dev/host-{id}"),
        permissions: "rw".into(),
    };
    ContainerAllocateResponse {
        envs: [("DEVICES".to_owned(), ids.join(","))].into(),
        mounts: vec![Mount { container_path: "/opt/driver".into(), host_path: "/opt/vendor".into(), read_only: true }],
        devices: ids.iter().map(device).collect(),
        annotations: [("vendor.com/ids".to_owned(), ids.join(","))].into(),
        cdi_devices: vec![CdiDevice { name: format!("vendor.com/dev={}", ids.join("-")) }],
    }
}
