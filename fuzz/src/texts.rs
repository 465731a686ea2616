//! What is read from a line of text: what parses prints, and what was printed parses to the same.

use std::sync::LazyLock;

use api::jsonpath::JsonPath;
use api::options::{Preconditions, Propagation, VersionMatch};
use api::selector::{FieldTerm, Op, Requirement};
use api::{Ask, DeleteOptions, FieldSelector, LabelSelector, ListOptions, Query, Target, Verb, WriteOptions};
use kinds::quantity::Quantity;
use kinds::scalar;
use rights::Refusal;
use serde_json::{Value, json};
use server::authn::User;
use server::authz::Attributes;

use crate::tape::Tape;

/// `METHOD TARGET`: a request line.
pub fn paths(bytes: &[u8]) {
    let Some((method, target)) = text(bytes).and_then(|line| line.split_once(' ')) else { return };
    let Ok(ask) = Ask::parse(method, target) else { return };
    let (method, line) = ask.print();
    let again = Ask::parse(method, &line).expect("what is printed is a request line");
    // A name that is no text has no other way to be written than as it was sent.
    let target = ask.target.clone().map(|target| Target { odd_name: Vec::new(), ..target });
    assert_eq!(again, Ask { target, ..ask });
}

/// The part of a request line behind the `?`, read as the options of every verb.
pub fn options(bytes: &[u8]) {
    let Some(query) = text(bytes).map(Query::parse) else { return };
    if let Ok(list) = ListOptions::parse(&query) {
        let mut printed = list.print();
        if query.flag("watch") == Some(true) {
            printed.push("watch", "true");
        }
        // No limit is said by no parameter.
        let list = ListOptions { limit: list.limit.max(0), ..list };
        assert_eq!(ListOptions::parse(&over_the_wire(&printed)), Ok(list));
    }
    for read in [WriteOptions::create, WriteOptions::update, |query: &Query| WriteOptions::patch(query, false)] {
        if let Ok(write) = read(&query) {
            // Only an apply can be forced.
            let write = WriteOptions { force: false, ..write };
            assert_eq!(read(&over_the_wire(&write.print())), Ok(write));
        }
    }
    if let Ok(write) = WriteOptions::patch(&query, true) {
        assert_eq!(WriteOptions::patch(&over_the_wire(&write.print()), true), Ok(write));
    }
    if let Ok(delete) = DeleteOptions::parse(&query) {
        assert_eq!(DeleteOptions::from_body(&delete.to_body()), Ok(delete));
    }
}

fn over_the_wire(query: &Query) -> Query {
    let ask = Ask { method: "GET".into(), verb: Verb::Get, path: "/".into(), query: query.clone(), target: None };
    let (_, line) = ask.print();
    Query::parse(line.split_once('?').map_or("", |(_, query)| query))
}

/// A selector of labels and of fields.
pub fn selectors(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        assert_eq!(FieldSelector::parse(&selector.to_string()), Ok(selector));
    }
}

/// What a client asks, made from its parts: the server reads those very parts.
pub fn asks(bytes: &[u8]) {
    let tape = &mut Tape::new(bytes);
    let word =
        |tape: &mut Tape| tape.one_of(&["pods", "x", "namespaces", "a.b", "proxy", "watch", "status"]).to_owned();
    let verb = tape.one_of(&[
        Verb::Get,
        Verb::List,
        Verb::Watch,
        Verb::Create,
        Verb::Update,
        Verb::Patch,
        Verb::Delete,
        Verb::DeleteCollection,
    ]);
    let mut target = Target {
        group: tape.one_of(&["", "apps", "a.example.com"]).to_owned(),
        version: tape.one_of(&["v1", "v1beta1"]).to_owned(),
        resource: tape.one_of(&["pods", "configmaps", "namespaces", "nodes", "proxies"]).to_owned(),
        ..Target::default()
    };
    if tape.chance(128) {
        target.namespace = format!("n{}", tape.text(&NAME_LETTERS, 5));
    }
    let named = matches!(verb, Verb::Get | Verb::Update | Verb::Patch | Verb::Delete);
    if named {
        target.name = format!("n{}", tape.text(&NAME_LETTERS, 5));
        if tape.chance(128) {
            target.subresource = word(tape);
            if tape.chance(64) {
                target.rest = format!("r{}", tape.text(&NAME_LETTERS, 5));
            }
        }
    }
    // The namespace of a namespace is its own name.
    if target.resource == "namespaces" {
        target.namespace = target.name.clone();
        // Of the parts of a namespace these two are no resources in it.
        target.rest = String::new();
        if !target.subresource.is_empty() {
            target.subresource = tape.one_of(&["status", "finalize"]).to_owned();
        }
    }
    let reads = matches!(verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
    let write = write_options(tape);
    let query = if reads { list_options(tape, &verb).print() } else { write.print() };
    let ask = Ask::of(verb, target, query);
    let (method, line) = ask.print();
    let read = Ask::parse(method, &line).expect("a client prints request lines");
    let mut want = ask.clone();
    // A list of one name is asked for as that name.
    if let (Some(want), Some(read)) = (&mut want.target, &read.target)
        && matches!(ask.verb, Verb::List | Verb::Watch)
    {
        want.name.clone_from(&read.name);
    }
    assert_eq!(read, want);
    if reads {
        let listed = ListOptions::parse(&read.query);
        assert_eq!(
            listed.map(|options| options.print()),
            ListOptions::parse(&ask.query).map(|options| options.print())
        );
    } else {
        assert_eq!(WriteOptions::patch(&read.query, write.force), Ok(write));
    }
    let delete = delete_options(tape);
    let body: Value = serde_json::from_str(&delete.to_body().to_string()).expect("a client prints JSON");
    assert_eq!(DeleteOptions::from_body(&body), Ok(delete));
}

/// What names may hold, and what would mean something in a request line.
const NAME_LETTERS: [char; 14] = ['a', 'Z', '0', '-', '.', '%', '?', '#', ' ', '&', ':', '+', 'é', '\u{1f600}'];

fn write_options(tape: &mut Tape) -> WriteOptions {
    use api::options::FieldValidation::{Ignore, Strict, Warn};
    let force = tape.chance(64);
    let manager = tape.text(&NAME_LETTERS, 5);
    WriteOptions {
        dry_run: tape.chance(64),
        // Only an apply can be forced, and it must be somebody's.
        field_manager: if force { format!("m{manager}") } else { manager },
        field_validation: tape.one_of(&[Warn, Ignore, Strict]),
        force,
    }
}

fn list_options(tape: &mut Tape, verb: &Verb) -> ListOptions {
    let watch = *verb == Verb::Watch;
    let mut options = ListOptions {
        labels: label_selector(tape),
        fields: field_selector(tape),
        resource_version: tape.chance(96).then(|| tape.below(300) as u64),
        timeout_seconds: tape.chance(64).then(|| tape.below(300) as i64),
        allow_watch_bookmarks: tape.chance(64),
        ..ListOptions::default()
    };
    match watch {
        true if tape.chance(64) => {
            options.send_initial_events = Some(tape.chance(128));
            options.version_match = Some(VersionMatch::NotOlderThan);
        }
        true => {}
        false if tape.chance(64) => {
            options.continue_token = format!("t{}", tape.text(&NAME_LETTERS, 5));
            options.resource_version = None;
        }
        false => {
            options.limit = tape.below(3) as i64;
            let matching = [VersionMatch::Exact, VersionMatch::NotOlderThan];
            let given = options.resource_version.filter(|version| *version > 0);
            options.version_match = given.and_then(|_| tape.chance(128).then(|| tape.one_of(&matching)));
        }
    }
    options
}

fn label_selector(tape: &mut Tape) -> LabelSelector {
    let mut terms = Vec::new();
    while terms.len() < 4 && tape.chance(96) {
        let key = tape.one_of(&["a", "b.c/d", "in", "notin", "app.kubernetes.io/name"]).to_owned();
        let op = tape.one_of(&[
            Op::Exists,
            Op::DoesNotExist,
            Op::Equals,
            Op::NotEquals,
            Op::In,
            Op::NotIn,
            Op::GreaterThan,
            Op::LessThan,
        ]);
        let values: Vec<String> = match op {
            Op::Exists | Op::DoesNotExist => Vec::new(),
            Op::GreaterThan | Op::LessThan => vec![tape.below(300).to_string()],
            Op::Equals | Op::NotEquals => vec![tape.one_of(&["", "x", "in", "1.2_3-4"]).to_owned()],
            Op::In | Op::NotIn => {
                let all = ["", "in", "x", "y"];
                let some: Vec<String> = all.iter().filter(|_| tape.chance(128)).map(|s| (*s).to_owned()).collect();
                if some.is_empty() { vec!["x".to_owned()] } else { some }
            }
        };
        terms.push(Requirement { key, op, values });
    }
    terms.sort_by(|a, b| a.key.cmp(&b.key));
    LabelSelector(terms)
}

fn field_selector(tape: &mut Tape) -> FieldSelector {
    let mut terms = Vec::new();
    while terms.len() < 3 && tape.chance(96) {
        terms.push(FieldTerm {
            field: tape.one_of(&["metadata.name", "metadata.namespace", "status.phase"]).to_owned(),
            equal: tape.chance(128),
            value: tape.text(&['a', '=', ',', '\\', '!', ' ', '%', 'é'], 4),
        });
    }
    terms.sort_by(|a, b| a.field.cmp(&b.field));
    FieldSelector(terms)
}

fn delete_options(tape: &mut Tape) -> DeleteOptions {
    let policies = [Propagation::Orphan, Propagation::Background, Propagation::Foreground];
    let propagation = tape.chance(96).then(|| tape.one_of(&policies));
    let text = |tape: &mut Tape| tape.chance(96).then(|| tape.text(&NAME_LETTERS, 4));
    DeleteOptions {
        dry_run: tape.chance(64),
        grace_period_seconds: tape.chance(96).then(|| tape.below(300) as i64 - 1),
        propagation,
        // The old and the new way exclude each other.
        orphan_dependents: (propagation.is_none() && tape.chance(96)).then(|| tape.chance(128)),
        preconditions: Preconditions { uid: text(tape), resource_version: text(tape) },
        only_unreadable: tape.chance(32),
    }
}

/// An amount: its canonical form is the same amount and its own canonical form.
pub fn quantities(bytes: &[u8]) {
    let Some(quantity) = text(bytes).and_then(|text| Quantity::parse(text).ok()) else { return };
    let printed = quantity.to_string();
    // What is larger Go prints without a suffix, for which it has none, or reads otherwise where it has more digits.
    let largest = Quantity::parse("999E").expect("a constant");
    let minus = largest.sub(&largest).sub(&largest);
    if quantity > largest || quantity < minus {
        return;
    }
    // Up to 18 digits Go reads exactly whatever their suffix, and prints all digits where no suffix fits; of more it takes
    // no amount beyond the greatest integer.
    let cut = Quantity::parse(&i64::MAX.to_string()).expect("a constant");
    let many = printed.bytes().filter(u8::is_ascii_digit).count() > 18;
    if many && (quantity > cut || quantity < cut.sub(&cut).sub(&cut)) {
        return;
    }
    let again = Quantity::parse(&printed).expect("what is printed is a quantity");
    assert_eq!(again.to_string(), printed);
    assert_eq!(again, quantity, "{printed}");
    assert_eq!(again.is_negative(), quantity.is_negative(), "{printed}");
    let (whole, milli) = (quantity.value(), quantity.milli_value());
    assert!(whole.unsigned_abs() <= milli.unsigned_abs(), "{whole} and {milli} thousandths");
    assert!(quantity.round_up(0).is_multiple_of(0));
}

/// A time, a finer time, a duration and base64: what comes out of reading reads as itself.
pub fn times(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(Some(time)) = scalar::time(text.into()) {
        assert_eq!(scalar::time(time.as_str().into()), Ok(Some(time.clone())));
    }
    if let Ok(Some(time)) = scalar::micro_time(text.into()) {
        assert_eq!(scalar::micro_time(time.as_str().into()), Ok(Some(time.clone())));
    }
    if let Ok(duration) = scalar::duration(text) {
        assert_eq!(scalar::duration(&duration), Ok(duration.clone()));
        assert_eq!(scalar::parse_duration(&duration), scalar::parse_duration(text), "{duration}");
    }
    if let Ok(encoded) = scalar::base64(text.into()) {
        assert_eq!(scalar::base64(encoded.as_str().into()), Ok(encoded.clone()));
    }
}

/// A template of the command line, on an object: text or a reason, the same each time.
pub fn jsonpath(bytes: &[u8]) {
    static OBJECT: LazyLock<Value> = LazyLock::new(|| {
        json!({
            "kind": "List",
            "items": [
                {"metadata": {"name": "a", "labels": {"x.y/z": "1"}}, "n": 1, "list": [1, 2, [3]]},
                {"metadata": {"name": "b"}, "n": 2.5, "none": null, "on": true},
            ],
        })
    });
    let Some(path) = text(bytes).and_then(|text| JsonPath::parse(text).ok()) else { return };
    assert_eq!(path.print(&OBJECT), path.print(&OBJECT));
    let _ = path.find(&OBJECT);
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// What the server says to a request that it refuses, made from its parts: a client reads those very parts. And a text that
/// anybody may have written is read as something or as nothing.
pub fn refusals(bytes: &[u8]) {
    if let Some(text) = text(bytes) {
        let _ = Refusal::read(text);
    }
    let tape = &mut Tape::new(bytes);
    let name = |tape: &mut Tape| format!("n{}", tape.text(&ODD_LETTERS, 6));
    let user = User::new(name(tape), ["system:authenticated"]);
    let (namespace, object, subresource) = (name(tape), name(tape), name(tape));
    let path = format!("/{}", tape.text(&ODD_LETTERS, 8));
    let verb = tape.one_of(&["get", "list", "deletecollection", "impersonate:user-info"]);
    let attributes = match tape.chance(64) {
        true => Attributes::path(&user, verb, &path),
        false => Attributes {
            namespace: if tape.chance(128) { &namespace } else { "" },
            name: if tape.chance(128) { &object } else { "" },
            subresource: if tape.chance(128) { &subresource } else { "" },
            ..Attributes::resource(&user, verb, tape.one_of(&["", "apps"]), "pods")
        },
    };
    let reason = tape.one_of(&["", "RBAC: role.rbac.authorization.k8s.io \"x\" not found"]);
    let told = format!("Error from server (Forbidden): {}", attributes.forbidden(reason).message);
    let Some(Refusal::Rights { asked, reason: said }) = Refusal::read(&told) else { panic!("no refusal: {told}") };
    let (got, want) = (asked.wanted(), attributes.wanted());
    // A subresource is told with its resource; what stands behind the first slash is all of it.
    assert_eq!(
        (got, &*asked.user, &*asked.namespace, &*said),
        (want, &*user.name, attributes.namespace, reason),
        "{told}"
    );
}

/// What names are never made of and requests may hold.
const ODD_LETTERS: [char; 9] = ['a', '"', '\\', '<', '&', ' ', 'é', '\n', '\u{a0}'];
