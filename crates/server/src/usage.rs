//! What somebody really uses of their rights, from when it is asked for until nobody asks any more. Keeps no bodies and no
//! secrets, only what authorization looked at; where nobody is recorded, a request costs one load more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rights::{Recorded, Usage};

use crate::authn::POD_NAME;
use crate::authz::Attributes;

/// Recordings at a time.
pub const RECORDINGS_MAX: usize = 16;
/// Different requests that one recording remembers.
pub const USAGES_MAX: usize = 10_000;
/// Text of names and paths that one recording remembers.
pub const TEXT_BYTES_MAX: usize = 4 << 20;
/// How long a recording goes on when nobody asks for it.
pub const LEASE: Duration = Duration::from_secs(60);

/// Remembers requests of those who are recorded, each once.
#[derive(Default)]
pub struct Recorder {
    /// Somebody is recorded.
    on: AtomicBool,
    recordings: Mutex<Vec<Recording>>,
}

struct Recording {
    id: String,
    user: String,
    until: Instant,
    text_bytes: usize,
    seen: Recorded,
}

impl Recorder {
    /// Records a user from now on; answers by which id it is asked for. None where there are [`RECORDINGS_MAX`] already.
    pub fn begin(&self, user: &str, now: Instant) -> Option<String> {
        let mut recordings = self.current(now);
        if recordings.len() >= RECORDINGS_MAX {
            return None;
        }
        let id = uuid::Uuid::new_v4().hyphenated().to_string();
        let recording = Recording {
            id: id.clone(),
            user: user.to_string(),
            until: now + LEASE,
            text_bytes: 0,
            seen: Recorded::default(),
        };
        recordings.push(recording);
        self.on.store(true, Ordering::Relaxed);
        Some(id)
    }

    /// What was used so far; the recording goes on for another [`LEASE`]. None where there is no such recording, or none any more.
    pub fn so_far(&self, id: &str, now: Instant) -> Option<Recorded> {
        let mut recordings = self.current(now);
        let recording = recordings.iter_mut().find(|recording| recording.id == id)?;
        recording.until = now + LEASE;
        Some(recording.seen.clone())
    }

    /// Ends a recording: all that was used.
    pub fn end(&self, id: &str, now: Instant) -> Option<Recorded> {
        let mut recordings = self.current(now);
        let at = recordings.iter().position(|recording| recording.id == id)?;
        let ended = recordings.swap_remove(at);
        self.on.store(!recordings.is_empty(), Ordering::Relaxed);
        Some(ended.seen)
    }

    /// Whether somebody records this user.
    pub fn records(&self, user: &str) -> bool {
        let recorded = || self.current(Instant::now()).iter().any(|recording| recording.user == user);
        self.on.load(Ordering::Relaxed) && recorded()
    }

    /// Called for every request that was decided.
    pub fn note(&self, attributes: &Attributes, allowed: bool) {
        if self.on.load(Ordering::Relaxed) {
            self.note_at(attributes, allowed, Instant::now());
        }
    }

    /// Rights of a user that a request took beside those for itself.
    pub fn add(&self, user: &str, used: Vec<Usage>) {
        for recording in self.current(Instant::now()).iter_mut().filter(|recording| recording.user == user) {
            used.iter().for_each(|usage| recording.add(usage.clone(), None));
        }
    }

    fn note_at(&self, attributes: &Attributes, allowed: bool, now: Instant) {
        let user = &attributes.user.name;
        for recording in self.current(now).iter_mut().filter(|recording| recording.user == *user) {
            recording.note(attributes, allowed);
        }
    }

    /// Those recordings that somebody still asks for.
    fn current(&self, now: Instant) -> MutexGuard<'_, Vec<Recording>> {
        let mut recordings = self.recordings.lock().unwrap_or_else(PoisonError::into_inner);
        recordings.retain(|recording| recording.until > now);
        self.on.store(!recordings.is_empty(), Ordering::Relaxed);
        recordings
    }
}

impl Recording {
    fn note(&mut self, attributes: &Attributes, allowed: bool) {
        let own = attributes.user.extra.get(POD_NAME).and_then(|names| names.first());
        self.add(usage(attributes, allowed), own.map(String::as_str));
    }

    /// `own` is the name of the pod that asks.
    fn add(&mut self, usage: Usage, own: Option<&str>) {
        if self.seen.usages.contains(&usage) {
            return;
        }
        let bytes =
            usage.namespace.len() + usage.group.len() + usage.resource.len() + usage.name.len() + usage.path.len();
        if self.seen.usages.len() >= USAGES_MAX || self.text_bytes + bytes > TEXT_BYTES_MAX {
            self.seen.full = true;
            return;
        }
        self.text_bytes += bytes;
        if own.is_some_and(|own| !own.is_empty() && own == usage.name) {
            self.seen.own.insert(usage.name.clone());
        }
        self.seen.usages.insert(usage);
    }
}

fn usage(attributes: &Attributes, allowed: bool) -> Usage {
    let resource = match attributes.subresource {
        "" => attributes.resource.to_string(),
        sub => format!("{}/{sub}", attributes.resource),
    };
    Usage {
        user: attributes.user.name.clone(),
        namespace: attributes.namespace.into(),
        group: attributes.group.into(),
        resource,
        verb: attributes.verb.into(),
        name: attributes.name.into(),
        path: if attributes.is_resource { String::new() } else { attributes.path.into() },
        allowed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::User;

    fn list<'a>(user: &'a User, name: &'a str) -> Attributes<'a> {
        Attributes { name, ..Attributes::resource(user, "get", "", "pods") }
    }

    #[test]
    fn a_recording_is_of_one_user_and_ends_when_nobody_asks() {
        let (recorder, begin) = (Recorder::default(), Instant::now());
        let (robot, other) = (User::new("robot", ["g"]), User::new("other", ["g"]));
        recorder.note(&list(&robot, "before"), true);
        let first = recorder.begin("robot", begin).unwrap();
        recorder.note_at(&list(&robot, "one"), true, begin);
        recorder.note_at(&list(&other, "two"), true, begin);
        let second = recorder.begin("robot", begin).unwrap();
        recorder.note_at(&list(&robot, "three"), false, begin);
        let names = |seen: Recorded| seen.usages.into_iter().map(|usage| usage.name).collect::<Vec<_>>();
        // Asking keeps one of them; the other one's time is over.
        assert_eq!(names(recorder.so_far(&first, begin + LEASE / 2).unwrap()), ["one", "three"]);
        assert_eq!(recorder.so_far(&second, begin + LEASE), None);
        recorder.note_at(&list(&robot, "four"), true, begin + LEASE);
        assert_eq!(names(recorder.end(&first, begin + LEASE).unwrap()), ["four", "one", "three"]);
        assert_eq!(recorder.end(&first, begin + LEASE), None);
        assert!(!recorder.on.load(Ordering::Relaxed), "nobody is recorded any more");
    }

    #[test]
    fn a_recording_ends_with_the_next_request_of_anybody() {
        let (recorder, begin) = (Recorder::default(), Instant::now());
        recorder.begin("robot", begin).unwrap();
        recorder.note_at(&list(&User::new("other", ["g"]), "x"), true, begin + LEASE);
        assert!(!recorder.on.load(Ordering::Relaxed));
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let (recorder, now) = (Recorder::default(), Instant::now());
        let ids: Vec<String> = (0..RECORDINGS_MAX).map(|_| recorder.begin("robot", now).unwrap()).collect();
        assert_eq!(recorder.begin("robot", now), None);
        ids[1..].iter().for_each(|id| drop(recorder.end(id, now)));
        let robot = User::new("robot", ["g"]);
        for name in 0..=USAGES_MAX {
            recorder.note_at(&list(&robot, &name.to_string()), true, now);
        }
        let seen = recorder.end(&ids[0], now).unwrap();
        assert_eq!((seen.usages.len(), seen.full), (USAGES_MAX, true));
        let id = recorder.begin("robot", now).unwrap();
        recorder.note_at(&list(&robot, &"x".repeat(TEXT_BYTES_MAX)), true, now);
        assert!(recorder.end(&id, now).unwrap().full);
    }

    #[test]
    fn a_pods_own_name_is_told_apart() {
        let (recorder, now) = (Recorder::default(), Instant::now());
        let mut robot = User::new("robot", ["g"]);
        robot.extra.insert(POD_NAME.into(), vec!["web-1".into()]);
        let id = recorder.begin("robot", now).unwrap();
        recorder.note_at(&list(&robot, "web-1"), true, now);
        recorder.note_at(&list(&robot, "web-2"), true, now);
        let own: Vec<String> = recorder.end(&id, now).unwrap().own.into_iter().collect();
        assert_eq!(own, ["web-1"]);
    }
}
