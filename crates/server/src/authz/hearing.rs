//! What webhooks say to one request. Authorizers are asked without waiting, from wherever somebody wants to know; a webhook
//! that has not been asked yet leaves its question here, and whatever was judged on the way is void. Who may wait puts the
//! question and judges again, until nothing is open: see [`Hearing::settle`]. Where no webhook is asked, none of this happens.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::Status;

use super::webhook::{Heard, Question, Webhook};
use super::{Attributes, Decision};

/// Questions that one request may bring up. Impersonation asks one for each group.
const QUESTIONS_MAX: usize = 256;

/// Empty at first, and of no cost while it is.
#[derive(Default)]
pub struct Hearing {
    is_open: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    open: Option<Question>,
    /// What was said to this request: it hears the same each time, whatever is remembered elsewhere.
    answers: Vec<(Question, Decision)>,
}

impl Hearing {
    /// Whether a question is open, so that what was judged since the last time is void.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Refuses what was judged when nobody thought that a webhook would be asked: the configuration changed meanwhile.
    ///
    /// # Errors
    /// That the request may be sent again.
    pub fn check_closed(&self) -> Result<(), Status> {
        match self.is_open() {
            true => Err(Status::unavailable("authorization was configured anew meanwhile; send the request again")),
            false => Ok(()),
        }
    }

    /// What a webhook says, as far as that is known.
    pub(super) fn hear(&self, webhook: &Arc<Webhook>, attributes: &Attributes<'_>) -> Option<Decision> {
        let question = Question::new(webhook, attributes);
        let mut inner = self.lock();
        if let Some((_, decision)) = inner.answers.iter().find(|(asked, _)| asked.is(&question)) {
            return Some(decision.clone());
        }
        match question.begin(attributes) {
            Heard::Answer(decision) => {
                if inner.answers.len() < QUESTIONS_MAX {
                    inner.answers.push((question, decision.clone()));
                }
                Some(decision)
            }
            Heard::Nothing => {
                inner.open = Some(question);
                self.is_open.store(true, Ordering::Release);
                None
            }
        }
    }

    /// Puts the open question, if there is one.
    pub async fn ask(&self) {
        let (open, asked) = {
            let mut inner = self.lock();
            (inner.open.take(), inner.answers.len())
        };
        if let Some(question) = open {
            let decision = match asked < QUESTIONS_MAX {
                true => question.ask().await,
                false => Decision::Deny {
                    reason: String::new(),
                    error: format!("a request may ask webhooks no more than {QUESTIONS_MAX} questions"),
                },
            };
            self.lock().answers.push((question, decision));
        }
        self.is_open.store(false, Ordering::Release);
    }

    /// Judges, and again with each answer, until nothing is open. `judge` must leave nothing behind when it is void.
    pub async fn settle<T>(&self, mut judge: impl FnMut() -> T) -> T {
        loop {
            let judged = judge();
            if !self.is_open() {
                return judged;
            }
            drop(judged);
            // In a box, so that who need not wait does not carry its size.
            Box::pin(self.ask()).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
