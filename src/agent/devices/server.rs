//! Where device plugins register.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tracing::warn;

use super::Devices;
use super::messages::{Empty, REGISTRATION, RegisterRequest, VERSION};
use crate::agent::pod::is_extended_resource;
use crate::agent::rpc::{self, DIRECTORY_MODE, Service};
use crate::host::fs::make_dirs;
use crate::host::socket::{self, Listener};

/// The socket's name, by which plugins find it.
const SOCKET: &str = "kubelet.sock";
/// What SELinux has to say of the directory so that plugins in containers may use it.
const LABEL: &[u8] = b"system_u:object_r:container_file_t:s0";

/// Makes the directory and the socket in it. Sockets of plugins that are there already are removed: so they see that the
/// kubelet has been restarted, and register again.
///
/// # Errors
/// The directory or the socket cannot be made, or a kubelet answers there.
pub async fn listen(devices: &Devices) -> io::Result<Listener> {
    let dir = &devices.dir;
    make_dirs(dir, DIRECTORY_MODE).map_err(|error| error.source)?;
    if Path::new("/sys/fs/selinux/enforce").exists()
        && let Err(error) = rustix::fs::setxattr(dir, "security.selinux", LABEL, rustix::fs::XattrFlags::empty())
    {
        warn!(%error, dir = %dir.display(), "device plugins in containers that are not privileged may not work");
    }
    let listener = socket::bind(&dir.join(SOCKET), DIRECTORY_MODE).await?;
    for entry in fs::read_dir(dir)?.flatten() {
        let is_socket = fs::metadata(entry.path()).is_ok_and(|found| found.file_type().is_socket());
        if is_socket && entry.file_name() != SOCKET {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(listener)
}

/// Has plugins register until `shutdown`.
pub async fn serve(listener: Listener, devices: Arc<Devices>, shutdown: CancellationToken) {
    rpc::serve(listener, Arc::new(Registration(devices)), shutdown).await;
}

struct Registration(Arc<Devices>);

impl Service for Registration {
    const NAME: &'static str = REGISTRATION;

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        match path.strip_prefix('/').and_then(|path| path.strip_prefix(REGISTRATION)) {
            Some("/Register") => rpc::unary(request, |asked| register(Arc::clone(&self.0), asked)).await,
            _ => rpc::unimplemented(REGISTRATION, &path),
        }
    }
}

async fn register(devices: Arc<Devices>, asked: RegisterRequest) -> Result<Empty, Status> {
    let RegisterRequest { version, endpoint, resource_name: resource, .. } = asked;
    devices.registrations.count([resource.clone().into()]);
    let registered = match () {
        () if version != VERSION => {
            let words = "is not supported by kubelet. Supported version is";
            Err(format!("requested API version {version:?} {words} [{VERSION:?}]"))
        }
        () if !is_extended_resource(&resource) => Err(format!("the ResourceName {resource:?} is invalid")),
        () => devices.connect(&resource, &endpoint).await,
    };
    registered.map(|()| Empty {}).map_err(|why| {
        warn!(resource, why, "a device plugin is not used");
        Status::unknown(why)
    })
}
