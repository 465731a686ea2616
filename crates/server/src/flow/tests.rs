//! Which schema takes a request, and who gets a seat when.

use serde_json::json;

use super::*;
use crate::authn::{AUTHENTICATED, MASTERS, UNAUTHENTICATED, service_account};

/// Everything that a cluster begins with.
fn suggested(total: u32) -> Flow {
    let flow = Flow::with_seats(total);
    for (resource, object) in bootstrap::all() {
        flow.on_change(resource, None, Some(object));
    }
    flow
}

fn user(name: &str) -> User {
    match service_account::split_user_name(name) {
        Some((namespace, _)) => {
            let groups = service_account::groups(namespace);
            User::new(name, groups.into_iter().chain([AUTHENTICATED.to_string()]))
        }
        None if name.starts_with("system:node:") => User::new(name, ["system:nodes", AUTHENTICATED]),
        None if name == "admin" => User::new(name, [MASTERS, AUTHENTICATED]),
        None if name == "system:anonymous" => User::new(name, [UNAUTHENTICATED]),
        None => User::new(name, [AUTHENTICATED]),
    }
}

fn ask(ask: &str) -> Ask {
    let (method, path) = ask.split_once(' ').unwrap();
    Ask::parse(method, path).unwrap()
}

#[track_caller]
fn check(who: &str, what: &str, want: &str) {
    let flow = suggested(SEATS_TOTAL);
    let schema = flow.classify(&user(who), &ask(what)).unwrap();
    assert_eq!(format!("{} at {}", schema.name, schema.level.name), want);
}

#[test]
fn requests_find_their_schema() {
    check("admin", "GET /api/v1/pods", "exempt at exempt");
    check("system:anonymous", "GET /livez", "probes at exempt");
    check("system:anonymous", "GET /readyz/ping", "probes at exempt");
    check("system:anonymous", "GET /livezz", "global-default at global-default");
    check("alice", "GET /api/v1/namespaces/default/pods", "global-default at global-default");
    check("system:node:n", "GET /api/v1/pods", "system-nodes at system");
    check("system:node:n", "PATCH /api/v1/nodes/n/status", "system-node-high at node-high");
    check(
        "system:node:n",
        "PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n",
        "system-node-high at node-high",
    );
    check("system:serviceaccount:default:x", "GET /api/v1/pods", "service-accounts at workload-low");
    check("system:serviceaccount:kube-system:x", "GET /api/v1/pods", "kube-system-service-accounts at workload-high");
    check("system:serviceaccount:kube-system2:x", "GET /api/v1/pods", "service-accounts at workload-low");
    let lease = "PUT /apis/coordination.k8s.io/v1/namespaces/a/leases/b";
    check("system:serviceaccount:kube-system:x", lease, "system-leader-election at leader-election");
    let endpoints = "PUT /api/v1/namespaces/a/endpoints/b";
    check("system:serviceaccount:kube-system:endpoint-controller", endpoints, "endpoint-controller at workload-high");
    check("system:serviceaccount:kube-system:x", endpoints, "workload-leader-election at leader-election");
    check("system:kube-scheduler", "GET /version", "kube-scheduler at workload-high");
}

/// A cluster of few seats and one level beside the mandatory ones, of this spec, for all users.
fn small(seats: u32, limited: Value) -> Flow {
    let flow = Flow::with_seats(seats);
    let mut spec = json!({"nominalConcurrencyShares": 100});
    spec.as_object_mut().unwrap().extend(limited.as_object().unwrap().clone());
    set_level(&flow, "small", spec);
    let rules = json!([{
        "subjects": [{"kind": "Group", "group": {"name": AUTHENTICATED}}],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}],
    }]);
    flow.on_change(
        SCHEMAS,
        None,
        Some(&json!({
            "metadata": {"name": "small", "uid": "schema-uid"},
            "spec": {
                "priorityLevelConfiguration": {"name": "small"},
                "matchingPrecedence": 1000,
                "distinguisherMethod": {"type": "ByUser"},
                "rules": rules,
            },
        })),
    );
    // The seats of the level that takes what is left belong to the small one.
    set_level(&flow, bootstrap::CATCH_ALL, json!({"nominalConcurrencyShares": 0, "limitResponse": {"type": "Reject"}}));
    flow
}

fn set_level(flow: &Flow, name: &str, limited: Value) {
    let level = json!({
        "metadata": {"name": name, "uid": format!("{name}-uid")},
        "spec": {"type": "Limited", "limited": limited},
    });
    flow.on_change(LEVELS, None, Some(&level));
}

fn queue(queues: u32, hand: u32, length: u32) -> Value {
    let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": length});
    json!({"limitResponse": {"type": "Queue", "queuing": queuing}})
}

/// A user asks for a seat, and either waits or has an answer at once.
struct Asking {
    asking: std::pin::Pin<Box<dyn Future<Output = Result<Seat, Refused>>>>,
}

impl Asking {
    fn new(flow: &Flow, who: &str, seats: u32) -> Asking {
        let (user, ask) = (user(who), ask("GET /api/v1/namespaces/default/pods"));
        let schema = flow.classify(&user, &ask).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        Asking { asking: Box::pin(async move { sit(&schema, &user, &ask, seats, deadline).await }) }
    }

    /// What is known by now.
    fn now(&mut self) -> Option<Result<Seat, Refused>> {
        futures_util::FutureExt::now_or_never(&mut self.asking)
    }
}

fn sits(flow: &Flow, who: &str) -> Option<Seat> {
    Asking::new(flow, who, 1).now().and_then(Result::ok)
}

#[tokio::test]
async fn a_level_without_queues_refuses() {
    let flow = small(2, json!({"limitResponse": {"type": "Reject"}}));
    let _seats = [sits(&flow, "a").unwrap(), sits(&flow, "b").unwrap()];
    let refused = Asking::new(&flow, "c", 1).now().unwrap();
    assert_eq!(refused.err(), Some(Refused::ConcurrencyLimit));
    assert!(sits(&flow, "admin").is_some(), "the exempt never wait");
}

#[tokio::test]
async fn who_waits_is_let_in_when_a_seat_is_free() {
    let flow = small(1, queue(1, 1, 2));
    let seat = sits(&flow, "a").unwrap();
    let mut waiting = [Asking::new(&flow, "a", 1), Asking::new(&flow, "b", 1)];
    waiting.iter_mut().for_each(|asking| assert!(asking.now().is_none()));
    assert_eq!(Asking::new(&flow, "c", 1).now().unwrap().err(), Some(Refused::QueueFull));
    drop(seat);
    let first = waiting[0].now().unwrap().unwrap();
    assert!(waiting[1].now().is_none());
    drop(first);
    assert!(waiting[1].now().unwrap().is_ok());
    assert_eq!(flow.levels().iter().map(|level| level.taken() + level.waiting()).sum::<u32>(), 0);
}

/// The clock is the test's.
#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_refused() {
    let flow = small(1, queue(4, 2, 10));
    let _seat = sits(&flow, "a").unwrap();
    let began = Instant::now();
    assert_eq!(Asking::new(&flow, "b", 1).asking.await.err(), Some(Refused::TimeOut));
    assert!(began.elapsed() >= WAIT_MAX && began.elapsed() < WAIT_MAX + Duration::from_secs(1));
    assert_eq!(flow.levels().iter().map(|level| level.waiting()).sum::<u32>(), 0);
}

#[tokio::test]
async fn who_gives_up_leaves_no_trace() {
    let flow = small(1, queue(4, 2, 10));
    let seat = sits(&flow, "a").unwrap();
    let mut gone = Asking::new(&flow, "b", 1);
    assert!(gone.now().is_none());
    drop(gone);
    // Let in, and gone before it could take the seat.
    let mut late = Asking::new(&flow, "c", 1);
    assert!(late.now().is_none());
    drop(seat);
    drop(late);
    assert!(sits(&flow, "d").is_some());
}

#[tokio::test]
async fn a_flood_does_not_hold_up_another() {
    let flow = small(4, queue(64, 6, 50));
    let seats: Vec<Seat> = (0..4).map(|_| sits(&flow, "flood").unwrap()).collect();
    let mut flood: Vec<Asking> = (0..200).map(|_| Asking::new(&flow, "flood", 1)).collect();
    flood.iter_mut().for_each(|asking| assert!(asking.now().is_none()));
    let mut other = Asking::new(&flow, "alice", 1);
    assert!(other.now().is_none());
    // Of the seats that are freed one after the other, one of the first goes to her, though two hundred came before.
    let mut held = seats;
    let mut freed = 0;
    let seat = loop {
        drop(held.remove(0));
        freed += 1;
        if let Some(seat) = other.now() {
            break seat;
        }
        held.extend(flood.iter_mut().find_map(|asking| asking.now()).and_then(Result::ok));
    };
    assert!(seat.is_ok() && freed <= 8, "{freed} seats were freed before hers");
}

#[tokio::test]
async fn a_changed_level_counts_at_once() {
    let flow = small(10, json!({"limitResponse": {"type": "Reject"}}));
    let seats: Vec<Seat> = (0..10).filter_map(|_| sits(&flow, "a")).collect();
    assert_eq!((seats.len(), sits(&flow, "a").is_none()), (10, true));
    // Another level takes half of the shares; nobody who sits is sent away.
    set_level(&flow, "other", json!({"nominalConcurrencyShares": 100, "limitResponse": {"type": "Reject"}}));
    drop(seats);
    let seats: Vec<Seat> = (0..10).filter_map(|_| sits(&flow, "a")).collect();
    assert_eq!(seats.len(), 5);
    // It lends four of its five seats out.
    set_level(
        &flow,
        "other",
        json!({"nominalConcurrencyShares": 100, "lendablePercent": 80, "limitResponse": {"type": "Reject"}}),
    );
    let more: Vec<Seat> = (0..10).filter_map(|_| sits(&flow, "a")).collect();
    assert_eq!(more.len(), 4);
    drop(more);
    // It may borrow one and no more.
    let limited =
        json!({"nominalConcurrencyShares": 100, "borrowingLimitPercent": 20, "limitResponse": {"type": "Reject"}});
    set_level(&flow, "small", limited);
    let more: Vec<Seat> = (0..10).filter_map(|_| sits(&flow, "a")).collect();
    assert_eq!(more.len(), 1);
}

#[tokio::test]
async fn who_is_entitled_goes_before_who_borrows() {
    let flow = small(4, queue(1, 1, 10));
    let mut limited = queue(1, 1, 10);
    limited["nominalConcurrencyShares"] = json!(100);
    limited["lendablePercent"] = json!(100);
    set_level(&flow, "other", limited);
    let schema = |group: &str| {
        json!({
            "metadata": {"name": "other"},
            "spec": {
                "priorityLevelConfiguration": {"name": "other"}, "matchingPrecedence": 10,
                "rules": [{
                    "subjects": [{"kind": "User", "user": {"name": group}}],
                    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}],
                }],
            },
        })
    };
    flow.on_change(SCHEMAS, None, Some(&schema("owner")));
    // Two of its own, and the two that the other lends.
    let mut seats: Vec<Seat> = (0..4).map(|_| sits(&flow, "a").unwrap()).collect();
    let mut borrower = Asking::new(&flow, "a", 1);
    let mut owner = Asking::new(&flow, "owner", 1);
    assert!(borrower.now().is_none() && owner.now().is_none());
    drop(seats.pop());
    let _owned = owner.now().unwrap().unwrap();
    assert!(borrower.now().is_none());
}

#[tokio::test]
async fn a_schema_that_leads_nowhere_takes_nothing() {
    let flow = small(10, json!({"limitResponse": {"type": "Reject"}}));
    let (alice, pods) = (user("alice"), ask("GET /api/v1/namespaces/default/pods"));
    let schema = |flow: &Flow| flow.classify(&alice, &pods).unwrap().name.to_string();
    assert_eq!(schema(&flow), "small");
    let level = json!({"metadata": {"name": "small"}});
    flow.on_change(LEVELS, Some(&level), None);
    assert_eq!(schema(&flow), bootstrap::CATCH_ALL);
    // The mandatory ones hold even where somebody takes them away.
    for (resource, object) in bootstrap::mandatory() {
        flow.on_change(resource, Some(object), None);
    }
    assert_eq!(schema(&flow), bootstrap::CATCH_ALL);
    assert_eq!(&*flow.classify(&user("admin"), &pods).unwrap().name, bootstrap::EXEMPT);
}

#[tokio::test]
async fn who_waits_at_a_level_that_goes_is_let_in() {
    let flow = small(1, queue(1, 1, 10));
    let _seat = sits(&flow, "a").unwrap();
    let mut waiting = Asking::new(&flow, "b", 1);
    assert!(waiting.now().is_none());
    flow.on_change(LEVELS, Some(&json!({"metadata": {"name": "small"}})), None);
    assert!(waiting.now().is_some_and(|seat| seat.is_ok()));
}

#[test]
fn hands_hold_different_queues() {
    for flow in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
        let mut hand = level::deal(flow, 64, 8);
        assert!(hand.iter().all(|queue| *queue < 64));
        hand.sort_unstable();
        hand.dedup();
        assert_eq!(hand.len(), 8);
    }
    assert_eq!(level::deal(7, 2, 8).len(), 2, "no more than there are");
}

/// What a request costs where nobody waits. Prints it; a debug build is no measure.
#[tokio::test]
async fn a_free_seat_is_cheap() {
    const TIMES: u32 = 100_000;
    let flow = suggested(SEATS_TOTAL);
    let (user, ask) = (user("system:serviceaccount:default:x"), ask("GET /api/v1/namespaces/default/pods/p"));
    let began = std::time::Instant::now();
    for _ in 0..TIMES {
        let schema = flow.classify(&user, &ask).unwrap();
        let seats = seats(&ask, &schema.level, || None);
        let deadline = Instant::now() + Duration::from_secs(60);
        assert!(sit(&schema, &user, &ask, seats, deadline).await.is_ok());
    }
    println!("{} ns a request", began.elapsed().as_nanos() / u128::from(TIMES));
}
