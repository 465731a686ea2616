//! What a cache of ten thousand pods costs. A binary of its own, since it counts every allocation.

#[path = "memory/pods.rs"]
mod pods;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kemudi_client::kinds::Pod;
use kemudi_client::{Api, Body, Client, ListOptions, Metadata, Resource, Result, Store, Transport};

const PODS: usize = 10_000;
const MIB: usize = 1 << 20;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system allocator's; the counters are beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Tells ten thousand pods by a watch, one a frame. The text is made before, so that making it is not counted.
struct Pods(Vec<Bytes>);

impl Transport for Pods {
    fn send(&self, _request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>>> {
        let frames = self.0.clone().into_iter().map(|line| Ok(Frame::data(line)));
        let open = futures_util::StreamExt::chain(stream::iter(frames), stream::pending());
        Box::pin(async move { Ok(Response::new(StreamBody::new(open).boxed_unsync())) })
    }
}

/// The same pods as one answer to a list, in pieces as HTTP/2 brings them.
struct Listed(Vec<Bytes>);

impl Listed {
    fn of(text: &[u8]) -> Listed {
        const PIECE_BYTES: usize = 16 << 10;
        Listed(text.chunks(PIECE_BYTES).map(Bytes::copy_from_slice).collect())
    }
}

impl Transport for Listed {
    fn send(&self, _request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>>> {
        let frames = self.0.clone().into_iter().map(|piece| Ok(Frame::data(piece)));
        Box::pin(async move { Ok(Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync())) })
    }
}

/// Lists all pods, as [`cost`].
async fn cost_of_list(api: Api<Pod>) -> (usize, usize, usize) {
    let (live, made) = (LIVE.load(Ordering::Relaxed), ALLOCATIONS.load(Ordering::Relaxed));
    PEAK.store(live, Ordering::Relaxed);
    let pods = api.list().await.unwrap();
    assert_eq!(pods.len(), PODS);
    (
        LIVE.load(Ordering::Relaxed) - live,
        PEAK.load(Ordering::Relaxed) - live,
        ALLOCATIONS.load(Ordering::Relaxed) - made,
    )
}

/// Fills a store; live heap and peak in bytes, and allocations, of all its objects.
async fn cost<K: Resource>(api: Api<K>) -> (usize, usize, usize) {
    let (live, made) = (LIVE.load(Ordering::Relaxed), ALLOCATIONS.load(Ordering::Relaxed));
    PEAK.store(live, Ordering::Relaxed);
    let mut reflector = Store::builder().reflector(&api, &ListOptions::default());
    let store = reflector.store();
    while !store.is_ready() {
        reflector.next().await.unwrap();
    }
    assert_eq!(store.len(), PODS);
    let cost = (
        LIVE.load(Ordering::Relaxed) - live,
        PEAK.load(Ordering::Relaxed) - live,
        ALLOCATIONS.load(Ordering::Relaxed) - made,
    );
    drop((reflector, store));
    cost
}

#[tokio::test]
async fn ten_thousand_pods_fit_in_little() {
    let lines: Vec<Bytes> = pods::watched((0..PODS).map(pods::pod)).into_iter().map(Bytes::from).collect();
    let bytes = lines.iter().map(Bytes::len).sum::<usize>() / PODS;
    assert!((4_000..6_000).contains(&bytes), "{bytes} bytes a pod");
    let listed = Client::with_transport(Arc::new(Listed::of(&pods::list(PODS))));
    let client = Client::with_transport(Arc::new(Pods(lines)));
    let check = |what: &str, (live, peak, made): (usize, usize, usize), live_max: usize, allocations_max: usize| {
        println!(
            "{what}: {:.1} MiB, {:.1} MiB at most, {:.1} allocations a pod",
            live as f64 / MIB as f64,
            peak as f64 / MIB as f64,
            made as f64 / PODS as f64
        );
        assert!(live <= live_max * MIB && peak <= live_max * MIB * 3 / 2, "{what}: {live} bytes, {peak} at most");
        assert!(made <= allocations_max * PODS, "{what}: {made} allocations");
    };
    let pods = cost(Api::<Pod>::all(client.clone())).await;
    check("pods", pods, 60, 60);
    check("a list", cost_of_list(Api::<Pod>::all(listed)).await, 60, 60);
    let metadata = cost(Api::<Metadata<Pod>>::all(client.clone())).await;
    check("metadata", metadata, 15, 60);
}
