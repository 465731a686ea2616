//! Watches: a stream of events that survives closed connections, and a watcher that survives everything.
//! A watcher holds no objects; what it tells is enough for its reader to hold them.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::api::ask::{Target, Verb};
use ::api::fields;
use ::api::options::VersionMatch;
use ::api::watch::{Key, Part};
use ::api::{Ask, EventType, ListOptions, Status};
use bytes::{Bytes, BytesMut};
use futures_core::future::BoxFuture;
use futures_core::stream::{BoxStream, Stream};
use http::Response;
use http_body::Body as _;
use serde_core::Deserialize;
use serde_core::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::client::{Client, request_of};
use crate::error::{Error, Result};
#[cfg(feature = "protobuf")]
use crate::protobuf;
use crate::resource::{ObjectList, Resource};
use crate::retry::back_off;
use crate::transport::Body;

/// Longest line of a watch, in bytes. Servers take objects of some 3 MB at most.
pub const EVENT_BYTES_MAX: usize = 16 << 20;
/// How long we ask a server to keep a watch open; it is opened again without a gap.
const WATCH_SECONDS: i64 = 290;
/// A watch that says nothing for this long after its end was due is dead.
const WATCH_SILENCE_MAX: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 15);
/// Objects in one page of a watcher's list.
const PAGE_ITEMS: i64 = 500;
/// Lists that were told by a watch and broke off before their end, after which lists are asked for instead: a server that
/// does not know how ends the watch without an end of the list.
const UNENDED_MAX: u32 = 2;
/// How long a list that is told by a watch may say nothing before its end: a server that has never heard of such a thing
/// tells objects and then changes, and no end of the list.
const LIST_SILENCE_MAX: Duration = Duration::from_secs(10);
/// Pauses between the attempts of a watcher, growing; back to the first after a watch that lasted.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
const LASTED: Duration = Duration::from_secs(10);

/// What happened to an object, as a watch tells it.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent<K> {
    /// It is new, or there from the start.
    Added(K),
    /// It was changed.
    Modified(K),
    /// It is gone; this is how it was last.
    Deleted(K),
    /// Nothing of interest happened up to this revision.
    Bookmark {
        /// Up to here everything was told.
        resource_version: String,
        /// All objects that were there at the start have been told.
        initial_events_end: bool,
    },
}

/// What a [`Watcher`] tells: after each `Init` all objects, then `InitDone`, then changes.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<K> {
    /// A new list begins: what is not told until `InitDone` is gone.
    Init,
    /// One of the list.
    InitApplied(K),
    /// That was the list.
    InitDone,
    /// Made or changed.
    Applied(K),
    /// Gone; this is how it was last.
    Deleted(K),
}

/// Changes as they happen. When the server ends the stream or the connection is lost, the watch goes on from the last
/// revision it saw. An error ends it; [`Error::is_expired`] means the revision is too old and a new list is needed.
pub struct Watch<K> {
    client: Client,
    target: Target,
    options: ListOptions,
    lines: Lines,
    ended: bool,
    kind: PhantomData<fn() -> K>,
}

/// All objects, then all changes, for ever: one watch that begins with all objects, or where the server does not know how,
/// a list (in pages) and a watch. It begins anew when history was lost. Errors are told and then followed by another attempt
/// after a growing pause; the reader ends it by dropping it.
pub struct Watcher<K> {
    client: Client,
    target: Target,
    options: ListOptions,
    state: State<K>,
    /// The server tells a list by a watch, as far as we know.
    streams_lists: bool,
    /// Lists told by a watch that broke off, one after the other.
    unended: u32,
    failures: u32,
    /// When the next attempt begins.
    wait: Option<Instant>,
}

enum State<K> {
    Start,
    /// A watch that begins with all objects. What was deleted meanwhile is told after them.
    Stream {
        watch: Box<Watch<K>>,
        deleted: VecDeque<K>,
    },
    Page {
        continue_token: String,
        items: VecDeque<K>,
        resource_version: String,
    },
    Watch {
        watch: Box<Watch<K>>,
        since: Instant,
        deleted: VecDeque<K>,
    },
}

impl<K: Resource> Watch<K> {
    pub(crate) async fn start(client: Client, target: Target, mut options: ListOptions) -> Result<Watch<K>> {
        options.allow_watch_bookmarks = true;
        let lines = open::<K>(&client, &target, &options).await?;
        Ok(Watch { client, target, options, lines, ended: false, kind: PhantomData })
    }

    /// The revision up to which everything was told, once one is known.
    pub fn resource_version(&self) -> Option<u64> {
        self.options.resource_version
    }

    /// The next event; `None` after an error, or when the options' own timeout has passed.
    pub async fn next(&mut self) -> Option<Result<WatchEvent<K>>> {
        while !self.ended {
            match timeout(WATCH_SILENCE_MAX, self.lines.next()).await {
                Ok(Some(Ok(line))) if line.iter().all(u8::is_ascii_whitespace) => {}
                Ok(Some(Ok(line))) => {
                    let event = self.read(&line);
                    self.ended = event.is_err();
                    return Some(event);
                }
                // The end that we asked for.
                Ok(None) if self.options.timeout_seconds.is_some() => self.ended = true,
                Ok(None) | Err(_) | Ok(Some(Err(Error::Lost(_)))) => {
                    if let Err(error) = self.resume().await {
                        self.ended = true;
                        return Some(Err(error));
                    }
                }
                Ok(Some(Err(error))) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    /// The same as a stream, which ends as [`Watch::next`] does.
    pub fn into_stream(self) -> impl Stream<Item = Result<WatchEvent<K>>> + Send {
        Told::by(self, |mut watch| Box::pin(async move { watch.next().await.map(|event| (event, watch)) }))
    }

    async fn resume(&mut self) -> Result<()> {
        if self.options.resource_version.is_none() {
            return Err(Error::Lost("the watch ended before it told a revision to go on from".to_string()));
        }
        // The initial objects were told, or the next start would tell them again.
        self.options.send_initial_events = None;
        self.options.version_match = None;
        // A server that ends each watch at once is not asked in a tight loop.
        sleep(BACK_OFF_MIN).await;
        self.lines = open::<K>(&self.client, &self.target, &self.options).await?;
        Ok(())
    }

    fn read(&mut self, line: &[u8]) -> Result<WatchEvent<K>> {
        let line = match self.lines.framing {
            Framing::Lines(_) => match plain(line).and_then(|(told, text)| Some((told, K::from_json(text).ok()?))) {
                Some((told, object)) => Ok(Line::Object(told, object)),
                None => serde_json::from_slice::<Line<K>>(line).map_err(|error| error.to_string()),
            },
            #[cfg(feature = "protobuf")]
            Framing::Frames => Line::of_frame(line),
        };
        let wrong = |why| Error::Decode {
            request: format!("a watch of {}", self.target.path()),
            wanted: std::any::type_name::<K>(),
            why,
        };
        let (told, object) = match line.map_err(wrong)? {
            Line::Object(told, object) => (told, object),
            Line::Error(status) => return Err((*status).into()),
            Line::Bookmark(mark) => {
                let initial_events_end = mark.metadata.annotations.end.is_some();
                if initial_events_end {
                    self.options.send_initial_events = None;
                    self.options.version_match = None;
                }
                self.saw(&mark.metadata.resource_version);
                return Ok(WatchEvent::Bookmark {
                    resource_version: mark.metadata.resource_version,
                    initial_events_end,
                });
            }
        };
        self.saw(object.resource_version());
        Ok(match told {
            EventType::Added => WatchEvent::Added(object),
            EventType::Deleted => WatchEvent::Deleted(object),
            _ => WatchEvent::Modified(object),
        })
    }

    fn saw(&mut self, revision: &str) {
        // Initial events come in the order of names; only their bookmark says where the watch stands.
        if self.options.send_initial_events != Some(true)
            && let Ok(revision) = revision.parse()
        {
            self.options.resource_version = Some(revision);
        }
    }
}

impl<K: Resource> Watcher<K> {
    pub(crate) fn new(client: Client, target: Target, options: ListOptions) -> Watcher<K> {
        let state = State::Start;
        Watcher { client, target, options, state, streams_lists: true, unended: 0, failures: 0, wait: None }
    }

    /// The same watcher that asks for lists even where the server could tell them by a watch.
    pub fn with_lists(mut self) -> Watcher<K> {
        self.streams_lists = false;
        self
    }

    /// What comes next. Waits as long as it takes.
    pub async fn next(&mut self) -> Result<Event<K>> {
        loop {
            // Whoever stops waiting for us and comes back waits on.
            if let Some(until) = self.wait {
                sleep_until(until).await;
                self.wait = None;
            }
            match self.step().await {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(error) => {
                    self.state = State::Start;
                    let pause = back_off(BACK_OFF_MIN, BACK_OFF_MAX, self.failures);
                    self.wait = Some(Instant::now() + pause.max(error.retry_after().unwrap_or_default()));
                    self.failures += 1;
                    // That history is gone is in the nature of watches: the new list says all.
                    if !error.is_expired() {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// The same as a stream, which never ends.
    pub fn into_stream(self) -> impl Stream<Item = Result<Event<K>>> + Send {
        Told::by(self, |mut watcher| {
            Box::pin(async move {
                let event = watcher.next().await;
                Some((event, watcher))
            })
        })
    }

    async fn step(&mut self) -> Result<Option<Event<K>>> {
        match &mut self.state {
            State::Start if self.streams_lists => self.stream().await,
            State::Start => {
                self.state = self.page("").await?;
                Ok(Some(Event::Init))
            }
            State::Stream { watch, deleted } => match timeout(LIST_SILENCE_MAX, watch.next()).await {
                Err(_) => {
                    self.streams_lists = false;
                    self.state = State::Start;
                    Ok(None)
                }
                Ok(told) => match told {
                    Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                        deleted.retain(|gone| !is_same(gone, &object));
                        Ok(Some(Event::InitApplied(object)))
                    }
                    Some(Ok(WatchEvent::Deleted(object))) => {
                        deleted.push_back(object);
                        Ok(None)
                    }
                    Some(Ok(WatchEvent::Bookmark { initial_events_end: true, .. })) => {
                        self.unended = 0;
                        let State::Stream { watch, deleted } = std::mem::replace(&mut self.state, State::Start) else {
                            return Ok(None);
                        };
                        self.state = State::Watch { watch, since: Instant::now(), deleted };
                        Ok(Some(Event::InitDone))
                    }
                    Some(Ok(WatchEvent::Bookmark { .. })) => Ok(None),
                    ended => {
                        self.unended += 1;
                        self.streams_lists = self.unended < UNENDED_MAX;
                        let ended = ended.and_then(Result::err);
                        Err(ended.unwrap_or_else(|| Error::Lost("the watch ended before its list did".to_string())))
                    }
                },
            },
            State::Page { items, continue_token, resource_version } => {
                if let Some(item) = items.pop_front() {
                    return Ok(Some(Event::InitApplied(item)));
                }
                let (continue_token, resource_version) = (continue_token.clone(), resource_version.clone());
                if !continue_token.is_empty() {
                    self.state = self.page(&continue_token).await?;
                    return Ok(None);
                }
                let options = ListOptions { resource_version: resource_version.parse().ok(), ..self.options.clone() };
                let watch = Watch::start(self.client.clone(), self.target.clone(), options).await?;
                self.state = State::Watch { watch: Box::new(watch), since: Instant::now(), deleted: VecDeque::new() };
                Ok(Some(Event::InitDone))
            }
            State::Watch { watch, since, deleted } => {
                if let Some(object) = deleted.pop_front() {
                    return Ok(Some(Event::Deleted(object)));
                }
                let event = watch.next().await;
                if since.elapsed() > LASTED {
                    self.failures = 0;
                }
                match event {
                    Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                        Ok(Some(Event::Applied(object)))
                    }
                    Some(Ok(WatchEvent::Deleted(object))) => Ok(Some(Event::Deleted(object))),
                    Some(Ok(WatchEvent::Bookmark { .. })) => Ok(None),
                    Some(Err(error)) => Err(error),
                    None => Err(Error::Lost("the watch ended".to_string())),
                }
            }
        }
    }

    /// Begins with a watch that tells all objects first.
    async fn stream(&mut self) -> Result<Option<Event<K>>> {
        let options = ListOptions {
            send_initial_events: Some(true),
            version_match: Some(VersionMatch::NotOlderThan),
            ..self.options.clone()
        };
        match Watch::start(self.client.clone(), self.target.clone(), options).await {
            Ok(watch) => {
                self.state = State::Stream { watch: Box::new(watch), deleted: VecDeque::new() };
                Ok(Some(Event::Init))
            }
            // It knows the words and does not do it, or takes them for nonsense.
            Err(error) if error.is_invalid() || error.is_bad_request() || error.is_method_not_allowed() => {
                self.streams_lists = false;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn page(&self, continue_token: &str) -> impl Future<Output = Result<State<K>>> + use<K> {
        let options =
            ListOptions { limit: PAGE_ITEMS, continue_token: continue_token.to_string(), ..self.options.clone() };
        let request = request_of(&Ask::of(Verb::List, self.target.clone(), options.print()), None);
        let client = self.client.clone();
        async move {
            let page: ObjectList<K> = client.list(request?).await?;
            Ok(State::Page {
                continue_token: page.metadata.continue_token,
                items: page.items.into(),
                resource_version: page.metadata.resource_version,
            })
        }
    }
}

/// Two readings of one object.
fn is_same<K: Resource>(one: &K, other: &K) -> bool {
    (one.name(), one.namespace()) == (other.name(), other.namespace())
}

async fn open<K: Resource>(client: &Client, target: &Target, options: &ListOptions) -> Result<Lines> {
    let mut options = options.clone();
    options.timeout_seconds.get_or_insert(WATCH_SECONDS);
    let request = request_of(&Ask::of(Verb::Watch, target.clone(), options.print()), None)?;
    let answer = client.call(client.accepting::<K>(request, false)).await?;
    let framing = framing::<K>(&answer);
    Ok(Lines::of(answer.into_body(), EVENT_BYTES_MAX, framing))
}

fn framing<K: Resource>(answer: &Response<Body>) -> Framing {
    #[cfg(feature = "protobuf")]
    if K::from_message().is_some() && protobuf::is_protobuf(answer.headers()) {
        return Framing::Frames;
    }
    let _ = answer;
    Framing::Lines(TooLong::Fails)
}

/// A line of a watch: its object is what its type says.
enum Line<K> {
    Object(EventType, K),
    Bookmark(Bookmark),
    Error(Box<Status>),
}

/// What a line tells of which object, as far as it looks as servers write it.
fn plain(line: &[u8]) -> Option<(EventType, &[u8])> {
    let rest = line.strip_prefix(br#"{"type":""#)?;
    [EventType::Added, EventType::Modified, EventType::Deleted].into_iter().find_map(|told| {
        let rest = rest.strip_prefix(told.as_str().as_bytes())?.strip_prefix(br#"","object":"#)?;
        Some((told, rest.strip_suffix(b"}")?))
    })
}

impl<K: DeserializeOwned> Line<K> {
    fn read<'de, D: Deserializer<'de>>(told: EventType, object: D) -> std::result::Result<Line<K>, D::Error> {
        Ok(match told {
            EventType::Error => Line::Error(Box::new(Status::deserialize(object)?)),
            EventType::Bookmark => Line::Bookmark(Bookmark::deserialize(object)?),
            told => Line::Object(told, K::deserialize(object)?),
        })
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Line<K> {
    fn deserialize<D: Deserializer<'de>>(decoder: D) -> std::result::Result<Line<K>, D::Error> {
        decoder.deserialize_map(LineVisitor(PhantomData))
    }
}

/// Reads a line in one go where the type comes first, as servers send it.
struct LineVisitor<K>(PhantomData<K>);

impl<'de, K: DeserializeOwned> Visitor<'de> for LineVisitor<K> {
    type Value = Line<K>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an event of a watch")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Line<K>, A::Error> {
        let (mut told, mut early, mut line) = (None, None, None);
        while let Some(key) = map.next_key_seed(Key)? {
            match (key, told) {
                (Part::Type, _) => told = Some(map.next_value()?),
                (Part::Object, Some(told)) => line = Some(map.next_value_seed(OfType(told, PhantomData))?),
                (Part::Object, None) => early = Some(map.next_value::<&RawValue>()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let told = told.ok_or_else(|| A::Error::missing_field("type"))?;
        match (line, early) {
            (Some(line), _) => Ok(line),
            (None, Some(object)) => Line::read(told, object).map_err(A::Error::custom),
            (None, None) => Err(A::Error::missing_field("object")),
        }
    }
}

/// The object of a line of this type.
struct OfType<K>(EventType, PhantomData<K>);

impl<'de, K: DeserializeOwned> DeserializeSeed<'de> for OfType<K> {
    type Value = Line<K>;

    fn deserialize<D: Deserializer<'de>>(self, decoder: D) -> std::result::Result<Line<K>, D::Error> {
        Line::read(self.0, decoder)
    }
}

#[derive(Default)]
struct Bookmark {
    metadata: BookmarkMeta,
}

fields!(Bookmark, read { metadata: "metadata" });

#[derive(Default)]
struct BookmarkMeta {
    resource_version: String,
    annotations: BookmarkNotes,
}

fields!(BookmarkMeta, read { resource_version: "resourceVersion", annotations: "annotations" });

#[derive(Default)]
struct BookmarkNotes {
    end: Option<String>,
}

fields!(BookmarkNotes, read { end: "k8s.io/initial-events-end" });

/// The annotation of the bookmark after the objects that were there at the start.
#[cfg(feature = "protobuf")]
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

#[cfg(feature = "protobuf")]
mod frames {
    use protobuf::{FromMessage, Read, Wire};

    use super::*;
    use crate::message;

    impl<K: Resource> Line<K> {
        /// What a frame without its length says.
        pub fn of_frame(frame: &[u8]) -> std::result::Result<Line<K>, String> {
            let (told, object) = protobuf::event(frame)?;
            Ok(match told {
                EventType::Error => Line::Error(Box::new(protobuf::status(object)?)),
                EventType::Bookmark => Line::Bookmark(protobuf::unwrapped(object, protobuf::read)?),
                told => {
                    let read: FromMessage<K> = K::from_message().ok_or("this type is not read from protobuf")?;
                    Line::Object(told, protobuf::unwrapped(object, read)?)
                }
            })
        }
    }

    message!(Bookmark { metadata = 1 });
    message!(BookmarkMeta { resource_version = 6, annotations = 12 });

    impl Read for BookmarkNotes {
        fn read(&mut self, wire: Wire<'_>, left: u32) -> std::result::Result<(), String> {
            let (key, value) = protobuf::entry::<String, protobuf::Plain, String>(wire, left)?;
            if key == INITIAL_EVENTS_END {
                self.end = Some(value);
            }
            Ok(())
        }
    }
}

/// A body's bytes as they come.
pub(crate) fn chunks(body: Body) -> BoxStream<'static, Result<Bytes>> {
    Box::pin(Chunks(body))
}

/// A body's lines as text, without their ends; a line longer than `limit` bytes comes in parts.
pub fn text_lines(body: Body, limit: usize) -> BoxStream<'static, Result<String>> {
    Box::pin(TextLines(Lines::of(body, limit, Framing::Lines(TooLong::Splits))))
}

struct Chunks(Body);

impl Stream for Chunks {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        poll_data(&mut self.0, cx)
    }
}

/// The next bytes of a body. What is no data is passed over.
fn poll_data(body: &mut Body, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
    loop {
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Poll::Ready(Some(Ok(data)));
                }
            }
        }
    }
}

struct TextLines(Lines);

impl Stream for TextLines {
    type Item = Result<String>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<String>>> {
        let line = ready!(self.0.poll_next(cx));
        Poll::Ready(line.map(|line| Ok(String::from_utf8_lossy(&line?).into_owned())))
    }
}

/// What becomes of a line longer than the limit.
#[derive(Clone, Copy)]
enum TooLong {
    Fails,
    Splits,
}

/// How one thing is told from the next.
#[derive(Clone, Copy)]
enum Framing {
    /// By the end of its line.
    Lines(TooLong),
    /// By its length, which is before it.
    #[cfg(feature = "protobuf")]
    Frames,
}

/// What a body tells, one after the other: lines, or frames without their lengths.
struct Lines {
    body: Body,
    limit: usize,
    framing: Framing,
    /// What came last and is not told yet.
    rest: Bytes,
    /// Before it, the beginning of a line.
    begun: BytesMut,
    ended: bool,
}

impl Lines {
    fn of(body: Body, limit: usize, framing: Framing) -> Lines {
        Lines { body, limit, framing, rest: Bytes::new(), begun: BytesMut::new(), ended: false }
    }

    async fn next(&mut self) -> Option<Result<Bytes>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            if let Some(line) = self.take() {
                return Poll::Ready(Some(line));
            }
            if self.ended {
                let last = match self.framing {
                    Framing::Lines(_) => self.begun.split().freeze(),
                    // Half a frame is nothing.
                    #[cfg(feature = "protobuf")]
                    Framing::Frames => Bytes::new(),
                };
                return Poll::Ready(Some(last).filter(|last| !last.is_empty()).map(Ok));
            }
            match ready!(poll_data(&mut self.body, cx)) {
                None => self.ended = true,
                Some(Ok(data)) => self.rest = data,
                Some(Err(error)) => {
                    // Half a line before a loss is no line.
                    self.ended = true;
                    self.begun.clear();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    /// The next of what has come, if it is whole or too long.
    fn take(&mut self) -> Option<Result<Bytes>> {
        match self.framing {
            Framing::Lines(too_long) => self.take_line(too_long),
            #[cfg(feature = "protobuf")]
            Framing::Frames => self.take_frame(),
        }
    }

    fn take_line(&mut self, too_long: TooLong) -> Option<Result<Bytes>> {
        if let Some(end) = memchr::memchr(b'\n', &self.rest) {
            let line = self.rest.split_to(end + 1).slice(..end);
            if self.begun.is_empty() {
                return Some(Ok(line));
            }
            self.begun.extend_from_slice(&line);
            return Some(Ok(self.begun.split().freeze()));
        }
        self.begun.extend_from_slice(&self.rest);
        self.rest = Bytes::new();
        if self.begun.len() <= self.limit {
            return None;
        }
        Some(match too_long {
            TooLong::Splits => Ok(self.begun.split_to(self.limit).freeze()),
            TooLong::Fails => Err(self.too_large("a line of the stream")),
        })
    }

    #[cfg(feature = "protobuf")]
    fn take_frame(&mut self) -> Option<Result<Bytes>> {
        self.begun.extend_from_slice(&std::mem::take(&mut self.rest));
        let bytes = protobuf::frame_bytes(&self.begun)?;
        if bytes > self.limit {
            return Some(Err(self.too_large("an event of the watch")));
        }
        let frame = (self.begun.len() >= bytes).then(|| self.begun.split_to(bytes).freeze());
        frame.map(|frame| Ok(frame.slice(protobuf::FRAME_HEAD_BYTES..)))
    }

    fn too_large(&mut self, what: &'static str) -> Error {
        self.ended = true;
        self.begun.clear();
        Error::TooLarge { what, limit: self.limit }
    }
}

/// The next thing that an owner tells, and the owner back; `None` after the last.
type Coming<S, T> = BoxFuture<'static, Option<(T, S)>>;

/// What its owner tells, one after the other, as a stream.
struct Told<S, T> {
    next: fn(S) -> Coming<S, T>,
    coming: Option<Coming<S, T>>,
}

impl<S, T> Told<S, T> {
    fn by(owner: S, next: fn(S) -> Coming<S, T>) -> Told<S, T> {
        Told { next, coming: Some(next(owner)) }
    }
}

impl<S, T> Stream for Told<S, T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let Some(coming) = &mut self.coming else { return Poll::Ready(None) };
        let told = ready!(coming.as_mut().poll(cx));
        let (told, owner) = told.unzip();
        self.coming = owner.map(self.next);
        Poll::Ready(told)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    /// The lines of a body that comes in these pieces.
    #[track_caller]
    fn check(pieces: &[&'static str], too_long: TooLong, want: &[&str]) {
        const LIMIT: usize = 8;
        let frames = pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
        let body = StreamBody::new(stream::iter(frames.collect::<Vec<_>>())).boxed_unsync();
        let mut lines = Lines::of(body, LIMIT, Framing::Lines(too_long));
        let told = async {
            let mut told = Vec::new();
            while let Some(line) = lines.next().await {
                told.push(match line {
                    Ok(line) => String::from_utf8_lossy(&line).into_owned(),
                    Err(error) => format!("! {error}"),
                });
            }
            told
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(told), want);
    }

    #[test]
    fn lines_do_not_care_how_they_come() {
        check(&["a\nb\nc\n"], TooLong::Fails, &["a", "b", "c"]);
        check(&["a", "b\n", "\n", "c\nd"], TooLong::Fails, &["ab", "", "c", "d"]);
        check(
            &["a\n123", "456789", "0\nb"],
            TooLong::Fails,
            &[
                "a",
                "! a line of the stream is larger than 8 bytes; ask for less at once (a selector, or a limit with continue)",
            ],
        );
        check(&["a\n123", "456789", "0\nb"], TooLong::Splits, &["a", "12345678", "90", "b"]);
        check(&[], TooLong::Fails, &[]);
    }

    #[test]
    fn a_line_says_its_type_first_or_last() {
        let check = |text: &str, want: &str| {
            let got = match serde_json::from_str::<Line<String>>(text) {
                Ok(Line::Object(told, object)) => format!("{} {object}", told.as_str()),
                Ok(Line::Bookmark(mark)) => format!("bookmark {}", mark.metadata.resource_version),
                Ok(Line::Error(status)) => format!("error {}", status.message),
                Err(why) => why.to_string(),
            };
            assert_eq!(got, want, "{text}");
        };
        check(r#"{"type":"ADDED","object":"a","more":1}"#, "ADDED a");
        check(r#"{"object":"a","type":"DELETED"}"#, "DELETED a");
        check(r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"5"}}}"#, "bookmark 5");
        check(r#"{"object":{"message":"gone"},"type":"ERROR"}"#, "error gone");
        check(r#"{"type":"ADDED"}"#, "missing field `object` at line 1 column 16");
        check(r#"{"object":"a"}"#, "missing field `type` at line 1 column 14");
    }
}
