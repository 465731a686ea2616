//! What shall happen next in a pod, and what its status says: functions of the pod, what is known of its containers, and
//! the time. Touches nothing.

use crate::pod::{
    Condition, Container, ContainerState, ContainerStatus, Ip, Pod, PodStatus, Resources, RestartPolicy, Running,
    Terminated, Waiting,
};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

/// The one image there is: the machine's own files.
pub const HOST_IMAGE: &str = "host";
/// What a container of [`HOST_IMAGE`] runs from, as its status tells.
pub const HOST_IMAGE_ID: &str = "host";

const BACK_OFF_FIRST: SignedDuration = SignedDuration::from_secs(10);
const BACK_OFF_MAX: SignedDuration = SignedDuration::from_secs(300);
/// A container that ran this long starts its back-off anew.
const BACK_OFF_RESET: SignedDuration = SignedDuration::from_secs(600);
/// After this long `ErrImagePull` turns into `ImagePullBackOff`.
const PULL_BACK_OFF: SignedDuration = SignedDuration::from_secs(10);

/// What the agent knows of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    pub name: String,
    pub state: State,
    pub last: Option<Terminated>,
    /// How often it was started again. Also the number of the log of the running attempt.
    pub restarts: u32,
    /// Restarts that count for the back-off.
    pub crashes: u32,
    /// When it ended last.
    pub ended_at: Option<Timestamp>,
    /// The startup probe has passed, or there is none.
    pub started: bool,
    /// The readiness probe passes, or there is none.
    pub ready: bool,
    pub id: String,
    /// What it runs from, as its status tells.
    pub image_id: String,
    /// Its image is being pulled: there is nothing to do until that has ended.
    pub pulling: bool,
    /// How many times in a row its image could not be pulled.
    pub pulls_failed: u32,
    /// What the node has granted it.
    pub allocated: Resources,
    /// What it is held to while it runs.
    pub applied: Option<Resources>,
    /// It was ended only to be started again, whatever its policy.
    pub restart: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum State {
    /// Not yet started.
    #[default]
    New,
    /// It could not be started; the reason is one of Kubernetes' words.
    Refused {
        reason: String,
        message: String,
        at: Timestamp,
    },
    Running {
        since: Timestamp,
    },
    Ended(Terminated),
}

impl Record {
    pub fn new(container: &Container) -> Record {
        Record { name: container.name.clone(), allocated: container.resources.clone(), ..Record::default() }
    }

    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    fn succeeded(&self) -> bool {
        matches!(&self.state, State::Ended(terminated) if terminated.exit_code == 0)
    }

    /// How it ended last, if it ever has.
    pub fn last_end(&self) -> Option<&Terminated> {
        match &self.state {
            State::Ended(terminated) => Some(terminated),
            _ => self.last.as_ref(),
        }
    }

    /// Notes the end of the running attempt.
    pub fn end(&mut self, terminated: Terminated, now: Timestamp) {
        if let State::Running { since } = self.state
            && now.duration_since(since) >= BACK_OFF_RESET
        {
            self.crashes = 0;
        }
        self.state = State::Ended(terminated);
        self.ended_at = Some(now);
        self.started = false;
        self.ready = false;
        self.applied = None;
    }
}

/// What shall be done now, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Start {
        container: String,
    },
    /// Stop containers that go on beside the others, now that those have ended.
    StopSidecars,
    /// Nothing will run in the pod any more.
    Finish,
}

/// What to do, and when to ask again at the latest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub wake: Option<Timestamp>,
}

/// The service account that a pod runs as.
pub fn account(spec: &crate::pod::PodSpec) -> &str {
    match spec.service_account_name.as_str() {
        "" => "default",
        name => name,
    }
}

/// The pause before a container is started again, after so many restarts that count: none, 10 s, 20 s, up to 5 min.
pub fn back_off(crashes: u32) -> SignedDuration {
    match crashes {
        0 => SignedDuration::ZERO,
        crashes => BACK_OFF_FIRST.saturating_mul(1 << (crashes - 1).min(16)).min(BACK_OFF_MAX),
    }
}

/// What is known of init containers, containers and ephemeral containers.
fn parts<'a>(pod: &Pod, records: &'a [Record]) -> (&'a [Record], &'a [Record], &'a [Record]) {
    let (init, rest) = records.split_at(pod.spec.init_containers.len().min(records.len()));
    let (main, ephemeral) = rest.split_at(pod.spec.containers.len().min(rest.len()));
    (init, main, ephemeral)
}

/// What shall happen next in a pod that is not being deleted. Records are those of the init containers, then of the
/// containers, then of the ephemeral ones, in the order of the spec.
pub fn decide(pod: &Pod, records: &[Record], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let (init, main, ephemeral) = parts(pod, records);
    let policy = pod.spec.restart_policy;
    let want =
        |plan: &mut Plan, record: &Record, container: &Container, policy| match next(record, container, policy, now) {
            Next::Start => plan.actions.push(Action::Start { container: record.name.clone() }),
            Next::At(time) => plan.wake = Some(plan.wake.map_or(time, |wake| wake.min(time))),
            Next::Nothing => {}
        };
    let over = |record: &Record, container: &Container| {
        matches!(next(record, container, policy, now), Next::Nothing) && matches!(record.state, State::Ended(_))
    };
    let main_over = main.iter().zip(&pod.spec.containers).all(|(record, container)| over(record, container));
    if main_over && !main.is_empty() {
        let sidecars = init.iter().any(|record| record.is_running());
        plan.actions.push(if sidecars { Action::StopSidecars } else { Action::Finish });
        return plan;
    }
    // Who looks into a pod that does not get ready needs them before anything else, once each.
    for (record, container) in ephemeral.iter().zip(&pod.spec.ephemeral_containers) {
        want(&mut plan, record, container, RestartPolicy::Never);
    }
    for (record, container) in init.iter().zip(&pod.spec.init_containers) {
        if container.is_sidecar() {
            want(&mut plan, record, container, RestartPolicy::Always);
            if !(record.is_running() && record.started) {
                return plan;
            }
        } else if !record.succeeded() {
            let policy = if policy == RestartPolicy::Never { policy } else { RestartPolicy::OnFailure };
            want(&mut plan, record, container, policy);
            if matches!(&record.state, State::Ended(ended) if !container.restarts(ended.exit_code, policy)) {
                plan.actions.push(Action::Finish);
            }
            return plan;
        }
    }
    for (record, container) in main.iter().zip(&pod.spec.containers) {
        want(&mut plan, record, container, policy);
    }
    plan
}

enum Next {
    Start,
    At(Timestamp),
    Nothing,
}

fn next(record: &Record, container: &Container, policy: RestartPolicy, now: Timestamp) -> Next {
    if record.pulling {
        return Next::Nothing;
    }
    let since = match &record.state {
        State::Running { .. } => return Next::Nothing,
        State::New => return Next::Start,
        State::Refused { reason, at, .. } if reason == "ErrImagePull" => {
            // First the status changes its words, then it is tried again.
            let words = *at + PULL_BACK_OFF;
            let again = words + back_off(record.pulls_failed);
            return match now {
                now if now < words => Next::At(words),
                now if now < again => Next::At(again),
                _ => Next::Start,
            };
        }
        State::Refused { at, .. } => *at,
        State::Ended(_) if record.restart => return Next::Start,
        State::Ended(terminated) => {
            if !container.restarts(terminated.exit_code, policy) {
                return Next::Nothing;
            }
            record.ended_at.unwrap_or(now)
        }
    };
    let refused = matches!(record.state, State::Refused { .. });
    let time = since + if refused { BACK_OFF_FIRST } else { back_off(record.crashes) };
    if time <= now { Next::Start } else { Next::At(time) }
}

/// What the agent tells beside the containers.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub host_ip: String,
    /// Empty until the pod has its network.
    pub pod_ip: String,
    pub start_time: Option<String>,
    /// The agent has ended the pod as a whole: `DeadlineExceeded`, and the message.
    pub ended: Option<(String, String)>,
    /// The pod is being deleted, and no container will be started again.
    pub terminating: bool,
    /// A change of resources that has not been made.
    pub resize: Option<Resize>,
}

/// Why a pod does not have the resources yet that it asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Resize {
    /// It cannot have them, ever (`Infeasible`) or now (`Deferred`), and the message.
    Pending { reason: &'static str, message: String },
    /// They are being given; a message where that failed and is tried again.
    InProgress { error: Option<String> },
}

/// The status of the pod as it is now. Conditions keep the time of their last change from the status before.
pub fn status(pod: &Pod, records: &[Record], facts: &Facts, before: &PodStatus, now: Timestamp) -> PodStatus {
    let (init, main, ephemeral) = parts(pod, records);
    let initialized =
        pod.spec.init_containers.iter().zip(init).all(|(container, record)| match container.is_sidecar() {
            true => record.is_running() && record.started || facts.terminating || main_begun(main),
            false => record.succeeded() || main_begun(main),
        });
    let phase = phase(pod, init, main, facts, initialized);
    let over = phase == "Succeeded" || phase == "Failed";
    let statuses = |records: &[Record], containers: &[Arc<Container>], first: bool| -> Vec<ContainerStatus> {
        let both = records.iter().zip(containers);
        both.map(|(record, container)| container_status(record, container, first || initialized, over, now)).collect()
    };
    let ip = |ip: &str| if ip.is_empty() { Vec::new() } else { vec![Ip { ip: ip.to_owned() }] };
    let (reason, message) = facts.ended.clone().unwrap_or_default();
    PodStatus {
        observed_generation: Some(pod.metadata.generation).filter(|generation| *generation > 0),
        conditions: conditions(pod, init, main, facts, initialized, &phase, before, now),
        phase,
        message,
        reason,
        host_ip: facts.host_ip.clone(),
        host_ips: ip(&facts.host_ip),
        pod_ip: facts.pod_ip.clone(),
        pod_ips: ip(&facts.pod_ip),
        start_time: facts.start_time.clone(),
        init_container_statuses: statuses(init, &pod.spec.init_containers, true),
        container_statuses: statuses(main, &pod.spec.containers, false),
        ephemeral_container_statuses: statuses(ephemeral, &pod.spec.ephemeral_containers, true),
    }
}

fn main_begun(main: &[Record]) -> bool {
    main.iter().any(|record| matches!(record.state, State::Running { .. } | State::Ended(_)) || record.last.is_some())
}

fn phase(pod: &Pod, init: &[Record], main: &[Record], facts: &Facts, initialized: bool) -> String {
    if facts.ended.is_some() {
        return "Failed".into();
    }
    let policy = pod.spec.restart_policy;
    if !initialized {
        let dead = |(record, container): (&Record, &Arc<Container>)| {
            let end = matches!(&record.state, State::Ended(ended) if ended.exit_code != 0
                && (facts.terminating || !container.restarts(ended.exit_code, policy)));
            end && !container.is_sidecar()
        };
        let failed = (policy == RestartPolicy::Never || facts.terminating)
            && init.iter().zip(&pod.spec.init_containers).any(dead);
        return if failed { "Failed" } else { "Pending" }.into();
    }
    let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
    let mut again = false;
    for (record, container) in main.iter().zip(&pod.spec.containers) {
        match &record.state {
            State::Running { .. } => running += 1,
            State::Ended(terminated) => {
                again |= container.restarts(terminated.exit_code, policy);
                stopped += 1;
                succeeded += usize::from(terminated.exit_code == 0);
            }
            State::New | State::Refused { .. } if record.last.is_some() => stopped += 1,
            State::New | State::Refused { .. } => waiting += 1,
        }
    }
    if waiting > 0 {
        "Pending"
    } else if running > 0 {
        "Running"
    } else if stopped == 0 {
        "Pending"
    } else if (again || policy == RestartPolicy::Always) && !facts.terminating {
        "Running"
    } else if stopped == succeeded {
        "Succeeded"
    } else if policy == RestartPolicy::Never || facts.terminating {
        "Failed"
    } else {
        "Running"
    }
    .into()
}

fn container_status(record: &Record, container: &Container, turn: bool, over: bool, now: Timestamp) -> ContainerStatus {
    let waiting = |reason: &str, message: String| ContainerState {
        waiting: Some(Waiting { reason: reason.into(), message }),
        ..ContainerState::default()
    };
    let mut last = record.last.clone();
    let state = match &record.state {
        State::New => waiting(if turn { "ContainerCreating" } else { "PodInitializing" }, String::new()),
        State::Refused { reason, message, at }
            if reason == "ErrImagePull" && now.duration_since(*at) >= PULL_BACK_OFF =>
        {
            let message = format!("Back-off pulling image {:?}: ErrImagePull: {message}", container.image);
            waiting("ImagePullBackOff", message)
        }
        State::Refused { reason, message, .. } => waiting(reason, message.clone()),
        State::Running { since } => {
            ContainerState { running: Some(Running { started_at: Some(time(*since)) }), ..ContainerState::default() }
        }
        State::Ended(terminated) => {
            let pause = back_off(record.crashes);
            let waits = !over && record.ended_at.is_some_and(|ended| now < ended + pause) && record.crashes > 0;
            if waits && will_restart(record, container) {
                last = Some(terminated.clone());
                let message = format!("back-off {} restarting failed container={}", go_duration(pause), record.name);
                waiting("CrashLoopBackOff", message)
            } else {
                ContainerState { terminated: Some(terminated.clone()), ..ContainerState::default() }
            }
        }
    };
    ContainerStatus {
        name: record.name.clone(),
        state,
        last_state: ContainerState { terminated: last, ..ContainerState::default() },
        ready: record.ready && (record.is_running() || record.succeeded()),
        restart_count: record.restarts,
        image: container.image.clone(),
        image_id: record.image_id.clone(),
        container_id: record.id.clone(),
        started: Some(record.is_running() && record.started),
        allocated_resources: record.allocated.requests.clone(),
        resources: Some(record.applied.as_ref().unwrap_or(&record.allocated).clone()),
    }
}

/// A container with crashes on its account was restarted before; whether it will be again depends on how it ended.
fn will_restart(record: &Record, container: &Container) -> bool {
    match (&record.state, container.restart_policy) {
        (State::Ended(ended), Some(policy)) => container.restarts(ended.exit_code, policy),
        _ => !record.succeeded() || record.crashes > 0,
    }
}

#[allow(clippy::too_many_arguments)]
fn conditions(
    pod: &Pod,
    init: &[Record],
    main: &[Record],
    facts: &Facts,
    initialized: bool,
    phase: &str,
    before: &PodStatus,
    now: Timestamp,
) -> Vec<Condition> {
    let names = |records: &mut dyn Iterator<Item = &Record>| -> String {
        records.map(|record| record.name.as_str()).collect::<Vec<_>>().join(" ")
    };
    let completed = || Some(("PodCompleted".to_owned(), String::new()));
    let failed = || Some(("PodFailed".to_owned(), String::new()));
    let unready = names(&mut main.iter().filter(|record| !(record.is_running() && record.ready)));
    let not_ready = match phase {
        "Succeeded" => completed(),
        "Failed" => failed(),
        _ if unready.is_empty() => None,
        _ => Some(("ContainersNotReady".into(), format!("containers with unready status: [{unready}]"))),
    };
    let closed = |gate: &crate::pod::ReadinessGate| {
        let kind = &gate.condition_type;
        match pod.status.conditions.iter().find(|known| known.kind == *kind) {
            None => Some(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
            Some(known) if known.status == "True" => None,
            Some(known) => {
                Some(format!("the status of pod readiness gate {kind:?} is not \"True\", but {}", known.status))
            }
        }
    };
    let closed: Vec<String> = pod.spec.readiness_gates.iter().filter_map(closed).collect();
    let gated = (!closed.is_empty()).then(|| ("ReadinessGatesNotReady".to_owned(), closed.join(", ")));
    let not_gated = not_ready.clone().or(gated);
    let incomplete = names(&mut init.iter().filter(|record| !record.succeeded()));
    let not_initialized = (!initialized)
        .then(|| ("ContainersNotInitialized".to_owned(), format!("containers with incomplete status: [{incomplete}]")));
    // A pod that has ended was initialized, and says why nothing more happens.
    let initialized_reason = if phase == "Succeeded" && not_initialized.is_none() { completed() } else { None };
    let no_network =
        (facts.pod_ip.is_empty() || phase == "Succeeded" || phase == "Failed").then(|| (String::new(), String::new()));
    let wanted = [
        ("PodReadyToStartContainers", no_network, None),
        ("Initialized", not_initialized, initialized_reason),
        ("Ready", not_gated, None),
        ("ContainersReady", not_ready, None),
        ("PodScheduled", None, None),
    ];
    // A condition that is not there at all where nothing is to be said.
    let resize = facts.resize.as_ref().map(|resize| match resize {
        Resize::Pending { reason, message } => ("PodResizePending", None, Some((reason.to_string(), message.clone()))),
        Resize::InProgress { error: None } => ("PodResizeInProgress", None, None),
        Resize::InProgress { error: Some(error) } => {
            ("PodResizeInProgress", None, Some(("Error".into(), error.clone())))
        }
    });
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    let mut conditions = Vec::with_capacity(wanted.len() + usize::from(resize.is_some()));
    for (kind, not, beside) in resize.into_iter().chain(wanted) {
        let status = if not.is_some() { "False" } else { "True" };
        let known = before.conditions.iter().find(|known| known.kind == kind);
        let unchanged =
            known.filter(|known| known.status == status).and_then(|known| known.last_transition_time.clone());
        let (reason, message) = not.or(beside).unwrap_or_default();
        conditions.push(Condition {
            kind: kind.into(),
            observed_generation: Some(pod.metadata.generation).filter(|generation| *generation > 0),
            status: status.into(),
            last_probe_time: None,
            last_transition_time: unchanged.or_else(|| Some(time(now))),
            reason: text(reason),
            message: text(message),
        });
    }
    conditions
}

/// A time as Kubernetes writes it, in whole seconds.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `10s`, `2m40s`, `5m0s`, as Go prints durations.
fn go_duration(duration: SignedDuration) -> String {
    kinds::scalar::print_duration(duration.as_secs().saturating_mul(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    #[test]
    fn gates_are_what_others_say() {
        let check = |conditions: serde_json::Value, expected: &str| {
            let spec = json!({"containers": [{"name": "main", "image": "host"}],
                "readinessGates": [{"conditionType": "a"}, {"conditionType": "b"}]});
            let mut pod: Pod =
                serde_json::from_value(json!({"spec": spec, "status": {"phase": "Running", "conditions": conditions}}))
                    .unwrap();
            // An agent goes on with nothing else of a status than this.
            pod.forget_own_status();
            let facts = Facts { pod_ip: "10.244.0.1".into(), ..Facts::default() };
            let status = status(&pod, &[record("main:run")], &facts, &PodStatus::default(), at(0));
            let ready = status.conditions.iter().find(|condition| condition.kind == "Ready").unwrap();
            let words = [Some(ready.status.clone()), ready.reason.clone(), ready.message.clone()];
            assert_eq!(words.into_iter().flatten().collect::<Vec<_>>().join(" "), expected);
        };
        let (yes, no) = (json!({"type": "a", "status": "True"}), json!({"type": "b", "status": "Unknown"}));
        let missing = |gate: &str| format!("corresponding condition of pod readiness gate {gate:?} does not exist.");
        let both = format!("False ReadinessGatesNotReady {}, {}", missing("a"), missing("b"));
        check(json!([{"type": "Ready", "status": "True"}]), &both);
        check(
            json!([yes, no]),
            "False ReadinessGatesNotReady the status of pod readiness gate \"b\" is not \"True\", but Unknown",
        );
        check(json!([yes, {"type": "b", "status": "True"}]), "True");
    }

    /// A story of a pod: containers in words (`name:state`), the plan and the status in words.
    ///
    /// States: `new`, `run` (ready), `run-` (not ready), `exit0`, `exit1` (at time 0), with `/N` crashes counted.
    fn check(policy: &str, init: &[&str], main: &[&str], now: i64, expected: &str) {
        let spec = |words: &[&str]| -> Vec<serde_json::Value> {
            let name = |word: &&str| word.split(':').next().unwrap().to_owned();
            words
                .iter()
                .map(|word| match name(word).strip_prefix("side-") {
                    Some(_) => json!({"name": name(word), "image": "host", "restartPolicy": "Always"}),
                    None if name(word).starts_with("rule-") => json!({"name": name(word), "restartPolicy": "Never",
                        "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}),
                    None => json!({"name": name(word), "image": "host"}),
                })
                .collect()
        };
        let pod: Pod = serde_json::from_value(json!({
            "spec": {"restartPolicy": policy, "initContainers": spec(init), "containers": spec(main)}
        }))
        .unwrap();
        let records: Vec<Record> = init.iter().chain(main).map(|words| record(words)).collect();
        let plan = decide(&pod, &records, at(now));
        let facts = Facts { pod_ip: "10.244.0.1".into(), ..Facts::default() };
        let status = status(&pod, &records, &facts, &PodStatus::default(), at(now));
        let mut words: Vec<String> = plan
            .actions
            .iter()
            .map(|action| match action {
                Action::Start { container } => format!("start {container}"),
                Action::StopSidecars => "stop sidecars".into(),
                Action::Finish => "finish".into(),
            })
            .collect();
        words.extend(plan.wake.map(|wake| format!("wake {}", wake.duration_since(at(0)).as_secs())));
        words.push(status.phase.clone());
        let states = status.init_container_statuses.iter().chain(&status.container_statuses);
        words.extend(states.filter_map(|status| Some(status.state.waiting.as_ref()?.reason.clone())));
        words.extend(status.conditions.iter().filter(|c| c.status == "False").filter_map(|c| c.message.clone()));
        assert_eq!(words.join(", "), expected);
    }

    fn record(words: &str) -> Record {
        let (name, rest) = words.split_once(':').unwrap();
        let (state, crashes) = rest.split_once('/').unwrap_or((rest, "0"));
        let ended = |exit_code| State::Ended(Terminated { exit_code, ..Terminated::default() });
        let state = match state {
            "new" => State::New,
            "run" | "run-" => State::Running { since: at(0) },
            other => ended(other.strip_prefix("exit").and_then(|code| code.parse().ok()).expect(other)),
        };
        let running = matches!(state, State::Running { .. });
        Record {
            name: name.into(),
            ended_at: Some(at(0)),
            started: running,
            ready: running && !rest.starts_with("run-"),
            crashes: crashes.parse().unwrap(),
            state,
            ..Record::default()
        }
    }

    #[test]
    fn main_containers() {
        let unready = |names: &str| {
            let message = format!("containers with unready status: [{names}]");
            format!("{message}, {message}")
        };
        check("Always", &[], &["a:new"], 0, &format!("start a, Pending, ContainerCreating, {}", unready("a")));
        check("Always", &[], &["a:run"], 0, "Running");
        check("Always", &[], &["a:run-", "b:run"], 0, &format!("Running, {}", unready("a")));
        check("Always", &[], &["a:exit1"], 0, &format!("start a, Running, {}", unready("a")));
        check("Always", &[], &["a:exit1/2"], 5, &format!("wake 20, Running, CrashLoopBackOff, {}", unready("a")));
        check("Always", &[], &["a:exit0/1"], 10, &format!("start a, Running, {}", unready("a")));
        check("Never", &[], &["a:exit0"], 0, "finish, Succeeded");
        check("Never", &[], &["a:exit1", "b:exit0"], 0, "finish, Failed");
        check("Never", &[], &["a:exit1", "b:run"], 0, &format!("Running, {}", unready("a")));
        check(
            "OnFailure",
            &[],
            &["a:exit1/1", "b:exit0"],
            3,
            &format!("wake 10, Running, CrashLoopBackOff, {}", unready("a b")),
        );
        check("OnFailure", &[], &["a:exit0"], 0, "finish, Succeeded");
        check("Never", &[], &["rule-a:exit1"], 0, "finish, Failed");
        let again = unready("rule-a");
        check("Never", &[], &["rule-a:exit42"], 0, &format!("start rule-a, Running, {again}"));
        check("Never", &[], &["rule-a:exit42/1"], 5, &format!("wake 10, Running, CrashLoopBackOff, {again}"));
        check("Always", &[], &["rule-a:exit1", "b:run"], 0, &format!("Running, {again}"));
    }

    #[test]
    fn init_containers() {
        let not = |init: &str, main: &str| {
            let unready = format!("containers with unready status: [{main}]");
            format!("containers with incomplete status: [{init}], {unready}, {unready}")
        };
        check(
            "Always",
            &["i:new", "j:new"],
            &["a:new"],
            0,
            &format!("start i, Pending, ContainerCreating, ContainerCreating, PodInitializing, {}", not("i j", "a")),
        );
        check("Always", &["i:run"], &["a:new"], 0, &format!("Pending, PodInitializing, {}", not("i", "a")));
        check(
            "Always",
            &["i:exit1/1"],
            &["a:new"],
            1,
            &format!("wake 10, Pending, CrashLoopBackOff, PodInitializing, {}", not("i", "a")),
        );
        check(
            "Never",
            &["i:exit1"],
            &["a:new"],
            1,
            "finish, Failed, PodInitializing, containers with incomplete status: [i]",
        );
        check("Never", &["i:exit0"], &["a:run"], 1, "Running");
        check("Never", &["side-i:run"], &["a:exit0"], 1, "stop sidecars, Succeeded");
        check("Never", &["side-i:exit0"], &["a:exit0"], 1, "finish, Succeeded");
    }

    #[test]
    fn back_off_doubles_to_five_minutes() {
        let seconds: Vec<i64> = (0..8).map(|crashes| back_off(crashes).as_secs()).collect();
        assert_eq!(seconds, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(
            [go_duration(back_off(1)), go_duration(back_off(5)), go_duration(back_off(6))],
            ["10s", "2m40s", "5m0s"]
        );
    }

    #[test]
    fn a_long_run_forgets_the_crashes() {
        let mut record = record("a:run/5");
        record.end(Terminated::default(), at(599));
        assert_eq!(record.crashes, 5);
        record.state = State::Running { since: at(0) };
        record.end(Terminated::default(), at(600));
        assert_eq!(record.crashes, 0);
    }
}
