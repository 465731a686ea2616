//! Calls of the Container Runtime Interface: gRPC over one HTTP/2 connection on the runtime's Unix socket, which is made when it is
//! needed and again when the runtime has restarted. Carries messages; knows no pods.

use super::messages as m;
use crate::grpc::{PREFIX_BYTES, Tasks, frame};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use prost::Message;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::Mutex as AsyncMutex;

/// The largest answer that is read, in bytes: as much as a kubelet takes.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// How long an answer may take that nothing else is waited for in: as long as a kubelet waits.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(120);
const RUNTIME: &str = "runtime.v1.RuntimeService";
const IMAGES: &str = "runtime.v1.ImageService";
const EVENTS: &str = "containerd.services.events.v1.Events";
/// The namespace of containerd that its CRI keeps pods in.
const CONTAINERD_NAMESPACE: &str = "k8s.io";

/// Why a call did not do what was asked.
#[derive(Clone, Debug)]
pub struct Error {
    /// The number of gRPC.
    pub code: u32,
    pub message: String,
}

pub const UNKNOWN: u32 = 2;
pub const DEADLINE_EXCEEDED: u32 = 4;
pub const NOT_FOUND: u32 = 5;
pub const UNIMPLEMENTED: u32 = 12;
pub const UNAVAILABLE: u32 = 14;

/// As Go prints them, by their numbers.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = CODES.get(self.code as usize).copied().unwrap_or("Unknown");
        write!(f, "rpc error: code = {code} desc = {}", self.message)
    }
}

impl Error {
    fn unavailable(why: impl fmt::Display) -> Error {
        Error { code: UNAVAILABLE, message: why.to_string() }
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// A runtime's socket.
pub struct Client {
    path: PathBuf,
    connection: AsyncMutex<Option<Sender>>,
    tasks: Tasks,
}

impl Client {
    /// Of a socket that may not be there yet.
    pub fn new(path: &Path) -> Client {
        Client { path: path.to_owned(), connection: AsyncMutex::default(), tasks: Tasks::default() }
    }

    /// The connection that is there, or a new one.
    async fn sender(&self) -> Result<Sender, Error> {
        let mut known = self.connection.lock().await;
        if let Some(sender) = known.as_mut().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let stream = UnixStream::connect(&self.path).await.map_err(|error| {
            Error::unavailable(format!("connection error: dial unix {}: {}", self.path.display(), plain(&error)))
        })?;
        let (sender, connection) =
            http2::handshake(self.tasks.clone(), TokioIo::new(stream)).await.map_err(Error::unavailable)?;
        self.tasks.spawn(async move {
            // Whose call it was is told by the call.
            let _ = connection.await;
        });
        *known = Some(sender.clone());
        Ok(sender)
    }

    async fn send(&self, service: &str, method: &str, message: &impl Message) -> Result<(HeaderMap, Incoming), Error> {
        let mut sender = self.sender().await?;
        let request = Request::post(format!("http://localhost/{service}/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", concat!("kemudi/", env!("CARGO_PKG_VERSION")))
            .header("containerd-namespace", CONTAINERD_NAMESPACE)
            .body(Full::new(frame(&message.encode_to_vec())))
            .map_err(Error::unavailable)?;
        let answer = sender.send_request(request).await.map_err(Error::unavailable)?;
        let (head, body) = answer.into_parts();
        Ok((head.headers, body))
    }

    /// One question and its answer, without a limit of time.
    async fn ask<A: Message + Default>(&self, service: &str, method: &str, message: &impl Message) -> Result<A, Error> {
        let (headers, body) = self.send(service, method, message).await?;
        let mut answers = Answers { headers, body, bytes: BytesMut::new(), trailers: None };
        let answer = answers.next().await?;
        // What comes after the one message is how it went.
        while answers.next::<m::Nothing>().await?.is_some() {}
        answer.ok_or_else(|| Error { code: UNKNOWN, message: "the answer has no message".into() })
    }

    async fn call<A: Message + Default>(&self, method: &str, message: &impl Message) -> Result<A, Error> {
        within(CALL_TIME_MAX, self.ask(RUNTIME, method, message)).await
    }

    pub async fn version(&self) -> Result<m::VersionResponse, Error> {
        self.call("Version", &m::VersionRequest { version: "v1".into() }).await
    }

    pub async fn status(&self) -> Result<m::StatusResponse, Error> {
        self.call("Status", &m::StatusRequest { verbose: true }).await
    }

    pub async fn run_pod_sandbox(&self, request: &m::RunPodSandboxRequest) -> Result<String, Error> {
        Ok(self.call::<m::PodSandboxId>("RunPodSandbox", request).await?.pod_sandbox_id)
    }

    /// Ends all that runs in a pod, and gives its network back. One that is gone is no error.
    pub async fn stop_pod_sandbox(&self, id: &str) -> Result<(), Error> {
        let request = m::PodSandboxId { pod_sandbox_id: id.into() };
        self.call::<m::StopPodSandboxResponse>("StopPodSandbox", &request).await.map(drop)
    }

    pub async fn remove_pod_sandbox(&self, id: &str) -> Result<(), Error> {
        let request = m::PodSandboxId { pod_sandbox_id: id.into() };
        self.call::<m::RemovePodSandboxResponse>("RemovePodSandbox", &request).await.map(drop)
    }

    pub async fn pod_sandbox_status(&self, id: &str) -> Result<m::PodSandboxStatusResponse, Error> {
        self.call("PodSandboxStatus", &m::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: true }).await
    }

    /// Those with these labels.
    pub async fn pod_sandboxes(&self, labels: &[(&str, &str)]) -> Result<Vec<m::PodSandbox>, Error> {
        let label_selector = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let request = m::ListPodSandboxRequest { filter: Some(m::PodSandboxFilter { label_selector }) };
        Ok(self.call::<m::ListPodSandboxResponse>("ListPodSandbox", &request).await?.items)
    }

    pub async fn create_container(&self, request: &m::CreateContainerRequest) -> Result<String, Error> {
        Ok(self.call::<m::ContainerId>("CreateContainer", request).await?.container_id)
    }

    pub async fn start_container(&self, id: &str) -> Result<(), Error> {
        let request = m::ContainerId { container_id: id.into() };
        self.call::<m::StartContainerResponse>("StartContainer", &request).await.map(drop)
    }

    /// Signals a container to end, kills it when `seconds` are over, and waits until it has ended.
    pub async fn stop_container(&self, id: &str, seconds: u32) -> Result<(), Error> {
        let request = m::StopContainerRequest { container_id: id.into(), timeout: seconds.into() };
        let limit = CALL_TIME_MAX + Duration::from_secs(seconds.into());
        within(limit, self.ask::<m::StopContainerResponse>(RUNTIME, "StopContainer", &request)).await.map(drop)
    }

    pub async fn remove_container(&self, id: &str) -> Result<(), Error> {
        let request = m::ContainerId { container_id: id.into() };
        self.call::<m::RemoveContainerResponse>("RemoveContainer", &request).await.map(drop)
    }

    /// Those of a pod.
    pub async fn containers(&self, sandbox: &str) -> Result<Vec<m::Container>, Error> {
        let filter = m::ContainerFilter { pod_sandbox_id: sandbox.into() };
        let request = m::ListContainersRequest { filter: Some(filter) };
        Ok(self.call::<m::ListContainersResponse>("ListContainers", &request).await?.containers)
    }

    /// The number of a container's process on this machine, where the runtime tells it.
    pub async fn container_pid(&self, id: &str) -> Result<Option<u32>, Error> {
        let request = m::ContainerStatusRequest { container_id: id.into(), verbose: true };
        let answer: m::ContainerStatusResponse = self.call("ContainerStatus", &request).await?;
        Ok(pid_in(&answer.info))
    }

    pub async fn container_status(&self, id: &str) -> Result<m::ContainerStatus, Error> {
        let request = m::ContainerStatusRequest { container_id: id.into(), verbose: false };
        let answer: m::ContainerStatusResponse = self.call("ContainerStatus", &request).await?;
        answer.status.ok_or_else(|| Error { code: NOT_FOUND, message: format!("container {id} has no status") })
    }

    pub async fn update_container_resources(
        &self,
        id: &str,
        resources: m::LinuxContainerResources,
    ) -> Result<(), Error> {
        let request = m::UpdateContainerResourcesRequest { container_id: id.into(), linux: Some(resources) };
        self.call::<m::UpdateContainerResourcesResponse>("UpdateContainerResources", &request).await.map(drop)
    }

    /// Has the runtime write to a container's log under its name anew: what is there has got another.
    pub async fn reopen_container_log(&self, id: &str) -> Result<(), Error> {
        let request = m::ContainerId { container_id: id.into() };
        self.call::<m::ReopenContainerLogResponse>("ReopenContainerLog", &request).await.map(drop)
    }

    /// Runs a command to its end; the runtime kills it when the time is over.
    pub async fn exec_sync(
        &self,
        id: &str,
        cmd: &[String],
        limit: Option<Duration>,
    ) -> Result<m::ExecSyncResponse, Error> {
        let seconds = limit.map_or(0, |limit| limit.as_secs().max(1));
        let timeout = i64::try_from(seconds).unwrap_or(i64::MAX);
        let request = m::ExecSyncRequest { container_id: id.into(), cmd: cmd.to_vec(), timeout };
        let asked = self.ask(RUNTIME, "ExecSync", &request);
        match limit {
            Some(limit) => within(limit + CALL_TIME_MAX, asked).await,
            None => asked.await,
        }
    }

    /// Where a command's streams can be had.
    pub async fn exec(&self, request: &m::ExecRequest) -> Result<String, Error> {
        Ok(self.call::<m::StreamingUrl>("Exec", request).await?.url)
    }

    /// Where a container's own streams can be had.
    pub async fn attach(&self, request: &m::AttachRequest) -> Result<String, Error> {
        Ok(self.call::<m::StreamingUrl>("Attach", request).await?.url)
    }

    pub async fn image_status(&self, image: &str) -> Result<m::ImageStatusResponse, Error> {
        let image = m::ImageSpec { image: image.into(), ..m::ImageSpec::default() };
        let request = m::ImageStatusRequest { image: Some(image), verbose: true };
        within(CALL_TIME_MAX, self.ask(IMAGES, "ImageStatus", &request)).await
    }

    /// However long it takes: the runtime gives up where nothing comes any more.
    pub async fn pull_image(&self, image: &str, auth: Option<m::AuthConfig>) -> Result<String, Error> {
        let image = m::ImageSpec { image: image.into(), ..m::ImageSpec::default() };
        let request = m::PullImageRequest { image: Some(image), auth };
        Ok(self.ask::<m::PullImageResponse>(IMAGES, "PullImage", &request).await?.image_ref)
    }

    /// What becomes of containers, from now on.
    pub async fn container_events(&self) -> Result<Answers, Error> {
        let (headers, body) = self.send(RUNTIME, "GetContainerEvents", &m::GetEventsRequest {}).await?;
        Answers { headers, body, bytes: BytesMut::new(), trailers: None }.begun()
    }

    /// The same as containerd itself tells it.
    pub async fn containerd_exits(&self) -> Result<Answers, Error> {
        let filters = vec![format!("topic==\"/tasks/exit\",namespace=={CONTAINERD_NAMESPACE}")];
        let (headers, body) = self.send(EVENTS, "Subscribe", &m::SubscribeRequest { filters }).await?;
        Answers { headers, body, bytes: BytesMut::new(), trailers: None }.begun()
    }
}

/// An answer that comes in time.
async fn within<A>(limit: Duration, asked: impl Future<Output = Result<A, Error>>) -> Result<A, Error> {
    let late = |_| Err(Error { code: DEADLINE_EXCEEDED, message: "context deadline exceeded".into() });
    tokio::time::timeout(limit, asked).await.unwrap_or_else(late)
}

/// The process that a verbose status is about: its `info` is JSON.
pub fn pid_in(info: &HashMap<String, String>) -> Option<u32> {
    let info: serde_json::Value = serde_json::from_str(info.get("info")?).ok()?;
    info.get("pid")?.as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0)
}

impl Drop for Client {
    fn drop(&mut self) {
        self.tasks.end();
    }
}

/// Messages of an answer, one after another.
pub struct Answers {
    headers: HeaderMap,
    body: Incoming,
    bytes: BytesMut,
    trailers: Option<HeaderMap>,
}

impl Answers {
    /// An answer that has ended with its head has a reason.
    fn begun(self) -> Result<Answers, Error> {
        match status(&self.headers) {
            Some(outcome) => outcome.map(|()| self),
            None => Ok(self),
        }
    }

    /// The next one; nothing at a good end.
    pub async fn next<A: Message + Default>(&mut self) -> Result<Option<A>, Error> {
        loop {
            if let Some(message) = self.whole()? {
                return A::decode(message).map(Some).map_err(|why| Error { code: UNKNOWN, message: why.to_string() });
            }
            let Some(frame) = self.body.frame().await else {
                let trailers = self.trailers.as_ref().and_then(status);
                return match trailers.or_else(|| status(&self.headers)) {
                    Some(outcome) => outcome.map(|()| None),
                    None => Err(Error::unavailable("the answer ended without a word")),
                };
            };
            match frame.map_err(Error::unavailable)?.into_data() {
                Ok(data) => self.bytes.extend_from_slice(&data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }

    fn whole(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(prefix) = self.bytes.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if prefix[0] != 0 || length > MESSAGE_BYTES_MAX {
            let message = format!("a message of {length} bytes cannot be read; the most is {MESSAGE_BYTES_MAX}");
            return Err(Error { code: UNKNOWN, message });
        }
        if self.bytes.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        self.bytes.advance(PREFIX_BYTES);
        Ok(Some(self.bytes.split_to(length).freeze()))
    }
}

/// What headers or trailers say of how a call went.
fn status(headers: &HeaderMap) -> Option<Result<(), Error>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let code: u32 = text("grpc-status")?.parse().unwrap_or(UNKNOWN);
    let message = percent_encoding::percent_decode_str(text("grpc-message").unwrap_or_default());
    Some(match code {
        0 => Ok(()),
        code => Err(Error { code, message: message.decode_utf8_lossy().into_owned() }),
    })
}

/// The error's words as Go has them.
fn plain(error: &std::io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_gos() {
        let check = |code: &str, message: &str, want: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", code.parse().unwrap());
            headers.insert("grpc-message", message.parse().unwrap());
            let text = status(&headers).unwrap().map_or_else(|error| error.to_string(), |()| "fine".into());
            assert_eq!(text, want);
        };
        check("0", "", "fine");
        check("2", "no runtime for %22x%22", "rpc error: code = Unknown desc = no runtime for \"x\"");
        check("5", "container", "rpc error: code = NotFound desc = container");
        check("99", "what", "rpc error: code = Unknown desc = what");
        assert!(status(&HeaderMap::new()).is_none());
    }
}
