//! Measures the client library beside kube-rs in one process: the same ten thousand pods as the body of an answer, the same allocator
//! that counts, one thread. Prints one line of JSON. Loads loopback addresses only. Without an argument it prints the list of pods; with
//! one, the path of the same list in protobuf, it measures.

#[path = "../../../../client/tests/memory/pods.rs"]
mod pods;
mod watches;

use std::alloc::{GlobalAlloc, Layout, System};
use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use http::header::HeaderValue;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use k8s_openapi::api::core::v1::Pod;
use kemudi_client::{ListOptions, Metadata, Store, Transport, kinds};
use kube::core::PartialObjectMeta;
use kube::runtime::{reflector, watcher};
use serde_json::{Value, json};

const PODS: usize = 10_000;
/// Bytes in a piece of an answer, as HTTP/2 sends them unless told otherwise.
const PIECE_BYTES: usize = 16 << 10;
/// Times that each is measured; the median counts.
const TIMES: usize = 7;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system allocator's; the counters are beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        count(size);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn count(size: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    let live = LIVE.fetch_add(size, Ordering::Relaxed) + size;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What an answer is, in pieces that are shared, not copied.
#[derive(Clone)]
struct Answer {
    pieces: Arc<Vec<Bytes>>,
    media: &'static str,
    zipped: bool,
    /// A watch goes on after it.
    open: bool,
}

impl Answer {
    fn of(text: &[u8]) -> Answer {
        let pieces = text.chunks(PIECE_BYTES).map(Bytes::copy_from_slice).collect();
        Answer { pieces: Arc::new(pieces), media: "application/json", zipped: false, open: false }
    }

    fn in_protobuf(self) -> Answer {
        Answer { media: "application/vnd.kubernetes.protobuf", ..self }
    }

    /// The same as a server compresses it, with the level that kube-apiserver has.
    fn zipped(self) -> Answer {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
        self.pieces.iter().for_each(|piece| encoder.write_all(piece).expect("memory"));
        Answer { zipped: true, media: self.media, ..Answer::of(&encoder.finish().expect("memory")) }
    }

    fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    fn response(&self) -> Response<impl http_body::Body<Data = Bytes, Error = Infallible> + Send + use<>> {
        let pieces = self.pieces.clone();
        let frames = (0..pieces.len()).map(move |at| Ok(Frame::data(pieces[at].clone())));
        let rest = if self.open { stream::pending().left_stream() } else { stream::empty().right_stream() };
        let mut response = Response::new(StreamBody::new(stream::iter(frames).chain(rest)));
        response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(self.media));
        if self.zipped {
            response.headers_mut().insert(http::header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

impl Transport for Answer {
    fn send(&self, _: Request<Bytes>) -> BoxFuture<'_, kemudi_client::Result<Response<kemudi_client::Body>>> {
        let response = self.response().map(|body| body.map_err(|never| match never {}).boxed_unsync());
        Box::pin(std::future::ready(Ok(response)))
    }
}

fn ours(answer: &Answer) -> kemudi_client::Client {
    // It asks for all that it can read; what it gets is the answer's.
    kemudi_client::Client::with_transport(Arc::new(answer.clone())).with_gzip().with_protobuf()
}

fn theirs(answer: &Answer) -> kube::Client {
    let answer = answer.clone();
    let service = tower::service_fn(move |_: Request<kube::client::Body>| {
        std::future::ready(Ok::<_, tower::BoxError>(answer.response()))
    });
    kube::Client::new(service, "default")
}

/// What something costs.
#[derive(Clone, Copy)]
struct Cost {
    peak: usize,
    live: usize,
    allocations: usize,
    time: Duration,
}

/// The median of some runs, what each made held until it is counted.
async fn cost<T>(work: impl AsyncFn() -> T) -> Cost {
    let mut all = Vec::new();
    for _ in 0..TIMES {
        let (live, made) = (LIVE.load(Ordering::Relaxed), ALLOCATIONS.load(Ordering::Relaxed));
        PEAK.store(live, Ordering::Relaxed);
        let begun = cpu_time();
        let held = work().await;
        let time = cpu_time() - begun;
        all.push(Cost {
            peak: PEAK.load(Ordering::Relaxed) - live,
            live: LIVE.load(Ordering::Relaxed) - live,
            allocations: ALLOCATIONS.load(Ordering::Relaxed) - made,
            time,
        });
        drop(held);
    }
    all.sort_by_key(|cost| cost.time);
    all[TIMES / 2]
}

/// Of this thread: what others do on the machine does not count.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a value of this function.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn told(ours: Cost, theirs: Cost) -> Value {
    let one = |cost: Cost| {
        json!({
            "peakMiB": cost.peak as f64 / (1 << 20) as f64,
            "liveMiB": cost.live as f64 / (1 << 20) as f64,
            "allocations": cost.allocations as f64 / PODS as f64,
            "ms": cost.time.as_secs_f64() * 1e3,
        })
    };
    json!({"ours": one(ours), "theirs": one(theirs)})
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let begun = Instant::now();
    let list = pods::list(PODS);
    let Some(path) = std::env::args_os().nth(1) else {
        std::io::stdout().write_all(&list).expect("somebody reads it");
        return;
    };
    let (plain, protobuf) =
        (Answer::of(&list), Answer::of(&std::fs::read(path).expect("the list in protobuf")).in_protobuf());
    drop(list);
    let (zipped, zipped_protobuf) = (plain.clone().zipped(), protobuf.clone().zipped());
    let pods = async |answer: &Answer| {
        let pods = kemudi_client::Api::<kinds::Pod>::all(ours(answer)).list().await.expect("a list");
        assert_eq!(pods.len(), PODS);
        pods
    };
    let narrow = cost(async || pods(&plain).await).await;
    let complete = cost(async || {
        let pods = kemudi_client::Api::<Pod>::all(ours(&plain)).list().await.expect("a list");
        assert_eq!(pods.len(), PODS);
        pods
    })
    .await;
    let compressed = cost(async || pods(&zipped).await).await;
    let message = cost(async || pods(&protobuf).await).await;
    let compressed_message = cost(async || pods(&zipped_protobuf).await).await;
    let kube_list = cost(async || {
        let pods = kube::Api::<Pod>::all(theirs(&plain)).list(&Default::default()).await.expect("a list");
        assert_eq!(pods.items.len(), PODS);
        pods
    })
    .await;

    let text = pods::metadata_watch(PODS);
    let watch = Answer { open: true, ..Answer::of(&text) };
    let metadata = Answer::of(&pods::metadata_list(PODS));
    drop(text);
    let our_cache = cost(async || {
        let api = kemudi_client::Api::<Metadata<kinds::Pod>>::all(ours(&watch));
        let mut reflector = Store::builder().reflector(&api, &ListOptions::default());
        let store = reflector.store();
        while !store.is_ready() {
            reflector.next().await.expect("the next event");
        }
        assert_eq!(store.len(), PODS);
        (store, reflector)
    })
    .await;
    let kube_cache = cost(async || {
        let (store, writer) = reflector::store::<PartialObjectMeta<Pod>>();
        let api = kube::Api::<PartialObjectMeta<Pod>>::all(theirs(&metadata));
        let mut stream = Box::pin(reflector(writer, watcher(api, watcher::Config::default())));
        while store.len() < PODS {
            stream.next().await.expect("it goes on").expect("the next event");
        }
        (store, stream)
    })
    .await;
    let managed: usize = {
        let pod = pods::pod(0);
        let entries = pod["metadata"]["managedFields"].as_array().expect("it has some");
        entries.iter().map(|entry| entry["fieldsV1"].to_string().len()).sum()
    };
    let (our_connections, their_connections) = watches::connections().await;
    println!(
        "{}",
        json!({
            "pods": PODS,
            "list": told(narrow, kube_list),
            "complete": told(complete, kube_list),
            "compressed": told(compressed, kube_list),
            "protobuf": told(message, kube_list),
            "compressedProtobuf": told(compressed_message, kube_list),
            "wireBytes": {
                "list": plain.len(),
                "managedFields": managed * PODS,
                "compressed": zipped.len(),
                "protobuf": protobuf.len(),
                "compressedProtobuf": zipped_protobuf.len(),
            },
            "cache": told(our_cache, kube_cache),
            "watches": watches::WATCHES,
            "connections": {"ours": our_connections, "theirs": their_connections},
            "seconds": begun.elapsed().as_secs_f64(),
        })
    );
}
