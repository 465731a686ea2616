//! Each recorded request as a call of the client: the verb of `Api` that says the same, or where there is none, the request as
//! it is. What was sent and what came of it is compared with the recording.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use api::Ask;
use api::ask::{Query, Target, Verb};
use futures_util::StreamExt;
use kemudi_client::config::Impersonate;
use kemudi_client::{
    Api, ApiResource, Client, DeleteOptions, Deleted, Dynamic, Error, GetOptions, ListOptions, LogOptions, Metadata,
    ObjectList, ObjectMeta, Patch, Resource, Result, WatchEvent, WriteOptions, kinds,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Replay, Said, Sent, Step, steps};

/// Objects of which only the metadata is asked for; which kind it is, the `Api` says.
type Partial = Metadata<kinds::Pod>;

/// What a call gave.
enum Told {
    Object(Value),
    List(ObjectList<Dynamic>),
    Metadata(ObjectMeta),
    MetadataList(Vec<ObjectMeta>),
    Events(Vec<Value>),
    Text(String),
    /// Whatever it was, nobody looked at it.
    Nothing,
}

#[tokio::test(start_paused = true)]
async fn what_was_recorded_is_sent_and_read() {
    let (mut made, mut wrong) = (BTreeMap::<&str, usize>::new(), Vec::new());
    for step in steps("") {
        let (how, outcome) = replay(&step).await;
        *made.entry(how).or_default() += 1;
        wrong.extend(outcome.err().map(|why| format!("{} ({how} {} {}): {why}", step.name, step.method, step.target)));
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    let made: Vec<String> = made.iter().map(|(how, times)| format!("{how}: {times}")).collect();
    expect_test::expect![[r#"
        apply: 253
        create: 2994
        create subresource: 117
        delete: 490
        delete collection: 40
        get: 657
        get metadata: 6
        get subresource: 47
        list: 616
        list metadata: 32
        logs: 15
        patch json: 152
        patch merge: 453
        patch strategic: 106
        raw: 1610
        replace: 171
        replace subresource: 25
        watch: 58
        watch metadata: 9"#]]
    .assert_eq(&made.join("\n"));
}

/// How the request was made, and what was not as recorded.
async fn replay(step: &Arc<Step>) -> (&'static str, Result<(), String>) {
    let (client, replay) = Replay::client(step);
    let warnings: Arc<Mutex<Vec<String>>> = Arc::default();
    let hear = warnings.clone();
    let client = client.on_warning(move |text| hear.lock().unwrap().push(text.to_string()));
    let client = match acting(client, &step.identity) {
        Ok(client) => client,
        Err(error) => return ("acting", Err(error.to_string())),
    };
    let ask = Ask::parse(&step.method, &step.target).ok();
    let call = match &ask {
        Some(ask) => call(&client, step, ask).await,
        None => None,
    };
    let (how, outcome) = match call {
        Some((_, Err(Error::Request(_)))) if replay.asked().is_empty() => ("raw", raw(&client, step).await),
        Some(call) => call,
        None => ("raw", raw(&client, step).await),
    };
    if how == "raw" && replay.asked().is_empty() {
        // Methods and paths that HTTP libraries do not send.
        return ("unsendable", Ok(()));
    }
    let result = was_sent(&replay, step, ask.filter(|_| how != "raw").as_ref())
        .and_then(|()| was_read(step, outcome))
        .and_then(|()| warned(step, &warnings.lock().unwrap(), replay.asked().len()));
    (how, result)
}

fn acting(client: Client, identity: &Value) -> Result<Client> {
    let text = |key: &str| identity[key].as_str().map(str::to_string);
    let whom = Impersonate {
        user: text("user"),
        // The recording's program names one.
        groups: identity["groups"][0].as_str().map(str::to_string).into_iter().collect(),
        uid: text("uid").filter(|uid| !uid.is_empty()),
        // One value of each.
        extra: identity["extra"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, values)| (key.clone(), vec![values[0].as_str().unwrap_or_default().to_string()]))
            .collect(),
    };
    client.impersonating(&whom)
}

/// Makes the call that is this request, if the client has one.
async fn call(client: &Client, step: &Step, ask: &Ask) -> Option<(&'static str, Result<Told>)> {
    let target = ask.target.clone().filter(|target| target.rest.is_empty() && target.odd_name.is_empty())?;
    // Paths of other spellings, and the old ones of watches, are nobody's to send.
    if target.path() != ask.path {
        return None;
    }
    if step.headers.iter().any(|(name, _)| !matches!(name.as_str(), "accept" | "content-type" | "user-agent")) {
        return None;
    }
    let one_media = step.header("accept").filter(|media| *media != "application/json");
    let partial = match one_media.map(|media| media.split(';').map(str::trim).collect::<Vec<_>>()) {
        None => false,
        Some(mut parts) => {
            parts.sort();
            let of = if ask.verb == Verb::List { "as=PartialObjectMetadataList" } else { "as=PartialObjectMetadata" };
            if parts != ["application/json", of, "g=meta.k8s.io", "v=v1"] {
                return None;
            }
            true
        }
    };
    if partial {
        return read_metadata(Api::of(client.clone(), &resource(&target, step), &target.namespace), step, ask, &target)
            .await;
    }
    let api: Api<Dynamic> = Api::of(client.clone(), &resource(&target, step), &target.namespace);
    match ask.method.as_ref() {
        "GET" => read(api, step, ask, &target).await,
        "DELETE" => delete(api, step, ask, &target).await,
        _ => write(api, step, ask, &target).await,
    }
}

fn resource(target: &Target, step: &Step) -> ApiResource {
    let kind = match &step.body {
        Sent::Json(body) => body["kind"].as_str().unwrap_or("Thing"),
        _ => "Thing",
    };
    ApiResource {
        group: target.group.clone().into(),
        version: target.version.clone().into(),
        kind: kind.to_string().into(),
        plural: target.resource.clone().into(),
        namespaced: !target.namespace.is_empty() && target.resource != "namespaces",
    }
}

async fn read(api: Api<Dynamic>, step: &Step, ask: &Ask, target: &Target) -> Option<(&'static str, Result<Told>)> {
    let Sent::Nothing = step.body else { return None };
    match (&ask.verb, target.subresource.as_str()) {
        (Verb::Get, "") => {
            let options = said(GetOptions::parse(&ask.query), &ask.query, &["resourceVersion"])?;
            Some(("get", api.get_with(&target.name, &options).await.map(|object| Told::Object(object.0))))
        }
        (Verb::Get, "log") => {
            let options = LogOptions {
                container: ask.query.get("container").map(str::to_string),
                tail_lines: ask.query.get("tailLines").and_then(|lines| lines.parse().ok()),
                limit_bytes: ask.query.get("limitBytes").and_then(|bytes| bytes.parse().ok()),
                ..LogOptions::default()
            };
            if options.print() != ask.query {
                return None;
            }
            Some(("logs", api.logs(&target.name, &options).await.map(Told::Text)))
        }
        (Verb::Get, "exec" | "attach" | "portforward" | "proxy") => None,
        (Verb::Get, subresource) if ask.query.0.is_empty() => {
            Some(("get subresource", api.get_subresource(&target.name, subresource).await.map(Told::Object)))
        }
        (Verb::List, "") => Some(("list", api.list_with(&list_options(&ask.query)?).await.map(Told::List))),
        (Verb::Watch, "") => {
            let watch = match api.watch(&list_options(&ask.query)?).await {
                Ok(watch) => watch,
                Err(error) => return Some(("watch", Err(error))),
            };
            Some(("watch", Ok(Told::Events(events(watch.into_stream(), step).await))))
        }
        _ => None,
    }
}

async fn read_metadata(
    api: Api<Partial>,
    step: &Step,
    ask: &Ask,
    target: &Target,
) -> Option<(&'static str, Result<Told>)> {
    let of = |object: Partial| object.metadata;
    match (&ask.verb, target.subresource.as_str()) {
        (Verb::Get, "") => {
            let options = said(GetOptions::parse(&ask.query), &ask.query, &["resourceVersion"])?;
            Some(("get metadata", api.get_with(&target.name, &options).await.map(|object| Told::Metadata(of(object)))))
        }
        (Verb::List, "") => {
            let list = api.list_with(&list_options(&ask.query)?).await;
            Some(("list metadata", list.map(|list| Told::MetadataList(list.into_iter().map(of).collect()))))
        }
        (Verb::Watch, "") => {
            let watch = match api.watch(&list_options(&ask.query)?).await {
                Ok(watch) => watch,
                Err(error) => return Some(("watch metadata", Err(error))),
            };
            let told = watch.into_stream().take(recorded_events(step).len());
            let names = told.map(|event| match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object)) => {
                    of(object)
                }
                _ => ObjectMeta::default(),
            });
            Some(("watch metadata", Ok(Told::MetadataList(names.collect().await))))
        }
        _ => None,
    }
}

async fn write(api: Api<Dynamic>, step: &Step, ask: &Ask, target: &Target) -> Option<(&'static str, Result<Told>)> {
    const OPTIONS: [&str; 4] = ["dryRun", "fieldManager", "fieldValidation", "force"];
    let Sent::Json(body) = &step.body else { return None };
    let named = body["metadata"]["name"].as_str() == Some(&target.name);
    let object = Dynamic(body.clone());
    let told = |object: Dynamic| Told::Object(object.0);
    let plain = step.header("content-type").is_none_or(|media| media == "application/json");
    let media = step.header("content-type").unwrap_or_default();
    match (&ask.verb, target.subresource.as_str()) {
        (Verb::Create, "") if plain && body.is_object() && target.name.is_empty() => {
            let options = said(WriteOptions::create(&ask.query), &ask.query, &OPTIONS[..3])?;
            Some(("create", api.create_with(&object, &options).await.map(told)))
        }
        (Verb::Create, subresource) if plain && ask.query.0.is_empty() => Some((
            "create subresource",
            api.create_subresource(&target.name, subresource, body).await.map(Told::Object),
        )),
        (Verb::Update, "") if plain && named => {
            let options = said(WriteOptions::update(&ask.query), &ask.query, &OPTIONS[..3])?;
            Some(("replace", api.replace_with(&object, &options).await.map(told)))
        }
        (Verb::Update, subresource) if plain && !subresource.is_empty() && ask.query.0.is_empty() => Some((
            "replace subresource",
            api.replace_subresource(&target.name, subresource, body).await.map(Told::Object),
        )),
        (Verb::Patch, subresource) => {
            let apply = media == "application/apply-patch+yaml";
            let options = said(WriteOptions::patch(&ask.query, apply), &ask.query, &OPTIONS)?;
            let manager = options.field_manager.clone();
            let (how, patch) = match media {
                "application/json-patch+json" => ("patch json", Patch::Json(body)),
                "application/merge-patch+json" => ("patch merge", Patch::Merge(body)),
                "application/strategic-merge-patch+json" => ("patch strategic", Patch::Strategic(body)),
                "application/apply-patch+yaml" => {
                    ("apply", Patch::Apply { manager: &manager, force: options.force, object: body })
                }
                _ => return None,
            };
            let object = match subresource {
                "" => api.patch_with(&target.name, &patch, &options).await.map(told),
                subresource => {
                    api.patch_subresource(&target.name, subresource, &patch, &options).await.map(Told::Object)
                }
            };
            Some((how, object))
        }
        _ => None,
    }
}

async fn delete(api: Api<Dynamic>, step: &Step, ask: &Ask, target: &Target) -> Option<(&'static str, Result<Told>)> {
    if !target.subresource.is_empty() || step.header("content-type").is_some_and(|media| media != "application/json") {
        return None;
    }
    let options = delete_options(step, &ask.query)?;
    match ask.verb {
        Verb::Delete => {
            said(Ok::<_, ()>(()), &ask.query, &DELETE_KEYS)?;
            let deleted = api.delete_with(&target.name, &options).await;
            Some((
                "delete",
                deleted.map(|deleted| match deleted {
                    Deleted::Object(object) => Told::Object(object.0),
                    Deleted::Done(status) => {
                        let mut body =
                            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": status.status});
                        if let Some(details) = &status.details {
                            body["details"] = json!(details);
                        }
                        Told::Object(body)
                    }
                }),
            ))
        }
        Verb::DeleteCollection => {
            let query = without(&ask.query, &DELETE_KEYS);
            let deleted = api.delete_collection(&options, &list_options(&query)?).await;
            Some(("delete collection", deleted.map(|()| Told::Nothing)))
        }
        _ => None,
    }
}

/// The request as it was recorded, with nothing of ours but what all requests get.
async fn raw(client: &Client, step: &Step) -> Result<Told> {
    let mut request = http::Request::builder().method(step.method.as_str()).uri(&step.target);
    for (name, value) in &step.headers {
        request = request.header(name, value.as_deref().unwrap_or_default());
    }
    let body = match &step.body {
        Sent::Nothing => String::new(),
        Sent::Json(value) => value.to_string(),
        Sent::Text(text) => text.clone(),
    };
    let request = request.body(body.into()).map_err(|error| Error::Request(error.to_string()))?;
    let bytes = client.bytes(request).await?;
    Ok(match &step.said {
        Said::Json(_) => Told::Object(serde_json::from_slice(&bytes).unwrap_or_default()),
        Said::Text(_) => Told::Text(String::from_utf8_lossy(&bytes).into_owned()),
        _ => Told::Nothing,
    })
}

async fn events(stream: impl futures_util::Stream<Item = Result<WatchEvent<Dynamic>>>, step: &Step) -> Vec<Value> {
    let shown = stream.take(recorded_events(step).len()).map(|event| match event {
        Ok(WatchEvent::Added(object)) => json!({"type": "ADDED", "object": object}),
        Ok(WatchEvent::Modified(object)) => json!({"type": "MODIFIED", "object": object}),
        Ok(WatchEvent::Deleted(object)) => json!({"type": "DELETED", "object": object}),
        Ok(WatchEvent::Bookmark { resource_version, initial_events_end }) => {
            json!({"type": "BOOKMARK", "at": resource_version, "end": initial_events_end})
        }
        Err(error) => json!({"type": "ERROR", "code": error.code(), "message": error.to_string()}),
    });
    shown.collect().await
}

fn recorded_events(step: &Step) -> &[Value] {
    match &step.said {
        Said::Events(events) => events,
        // Where the recording read it as any other answer.
        Said::Json(event) => std::slice::from_ref(event),
        _ => &[],
    }
}

/// What was sent is what was recorded: once, or again where a read was turned away.
fn was_sent(replay: &Replay, step: &Step, ask: Option<&Ask>) -> Result<(), String> {
    let asked = replay.asked();
    let repeats = is_repeated(step);
    match (asked.len(), repeats) {
        (1, false) => {}
        (times, true) if times > 1 => {}
        (times, _) => return Err(format!("sent {times} times")),
    }
    let sent = &asked[0];
    let target = sent.uri().to_string();
    let line = format!("{} {target}", sent.method());
    if step.identity["user"].is_string() {
        let mut names = Vec::new();
        for (name, value) in sent.headers() {
            let value = String::from_utf8_lossy(value.as_bytes());
            names.extend(name.as_str().strip_prefix("impersonate-").map(|name| format!("{name}: {value}")));
        }
        let who = &step.identity;
        let mut wanted = Vec::new();
        for (name, value) in [("user", &who["user"]), ("group", &who["groups"][0]), ("uid", &who["uid"])] {
            wanted.extend(value.as_str().filter(|value| !value.is_empty()).map(|value| format!("{name}: {value}")));
        }
        for (key, values) in who["extra"].as_object().into_iter().flatten() {
            let key = key.to_lowercase().replace('/', "%2f");
            wanted.extend(values[0].as_str().map(|value| format!("extra-{key}: {value}")));
        }
        names.sort();
        wanted.sort();
        if names != wanted {
            return Err(format!("acting as {names:?}, not {wanted:?}"));
        }
    }
    let Some(ask) = ask else { return Ok(()) };
    let ours = Ask::parse(sent.method().as_str(), &target).map_err(|why| why.to_string())?;
    if (&ours.verb, &ours.path) != (&ask.verb, &ask.path) {
        return Err(format!("sent {line}"));
    }
    let body: Value = serde_json::from_slice(sent.body()).unwrap_or_default();
    let media = sent.headers().get("content-type").and_then(|media| media.to_str().ok()).unwrap_or_default();
    let same = match ask.verb {
        Verb::Delete | Verb::DeleteCollection => {
            let list = |query: &Query| ListOptions::parse(&without(query, &DELETE_KEYS)).ok();
            let sent = DeleteOptions::from_body(&body).ok();
            sent == delete_options(step, &ask.query) && list(&ours.query) == list(&ask.query)
        }
        Verb::Watch => {
            // A watch asks besides for bookmarks and for an end, where its caller names none.
            let mut ours = ListOptions::parse(&ours.query).map_err(|status| status.message)?;
            let theirs = ListOptions::parse(&ask.query).map_err(|status| status.message)?;
            ours.allow_watch_bookmarks = theirs.allow_watch_bookmarks;
            if theirs.timeout_seconds.is_none() {
                ours.timeout_seconds = None;
            }
            ours == theirs
        }
        Verb::List => ListOptions::parse(&ours.query).ok() == ListOptions::parse(&ask.query).ok(),
        _ => {
            // What says nothing, or what is so anyway, need not be said.
            let says = |query: &Query| {
                let mut said: Vec<_> = query
                    .0
                    .iter()
                    .filter(|(key, value)| {
                        !value.is_empty() && (key.as_str(), value.as_str()) != ("fieldValidation", "Warn")
                    })
                    .cloned()
                    .collect();
                said.sort();
                said
            };
            says(&ours.query) == says(&ask.query)
        }
    };
    if !same {
        return Err(format!("sent {line} {body}"));
    }
    if let (Sent::Json(recorded), Verb::Create | Verb::Update | Verb::Patch) = (&step.body, &ask.verb) {
        let mut recorded = recorded.clone();
        if ask.verb != Verb::Patch && ask.target.as_ref().is_some_and(|target| target.subresource.is_empty()) {
            for key in ["apiVersion", "kind"] {
                if recorded.get(key).is_none() {
                    recorded[key] = body[key].clone();
                }
            }
        }
        let wanted = step.header("content-type").unwrap_or("application/json");
        if body != recorded || media != wanted {
            return Err(format!("sent {media} {body}"));
        }
    }
    Ok(())
}

/// A read that met an overload is made again, and so is what is only tried.
fn is_repeated(step: &Step) -> bool {
    let retry_after = step.answered.iter().any(|(name, _)| name == "retry-after");
    let applies = step.header("content-type") == Some("application/apply-patch+yaml");
    let safe =
        matches!(step.method.as_str(), "GET" | "HEAD" | "OPTIONS") || step.target.contains("dryRun=All") || applies;
    match step.code {
        429 => retry_after || safe,
        503 | 504 => safe,
        500 => retry_after && safe,
        _ => false,
    }
}

/// What the client made of the answer is what it says.
fn was_read(step: &Step, outcome: Result<Told>) -> Result<(), String> {
    let told = match outcome {
        Err(error) if step.code >= 400 => return refused(step, &error),
        Err(error) => return Err(format!("failed: {error}")),
        Ok(told) if step.code >= 400 => return Err(format!("no error, but {}", shown(&told))),
        Ok(told) => told,
    };
    let same = match (&step.said, &told) {
        (Said::Skipped, _) | (_, Told::Nothing) => true,
        (Said::Text(text), Told::Text(told)) => text == told,
        (Said::Json(body), Told::Object(object)) => {
            metadata_is_read(body)?;
            body == object
        }
        (Said::Json(body), Told::List(list)) => {
            for item in body["items"].as_array().into_iter().flatten() {
                metadata_is_read(item)?;
            }
            let items: Vec<&Value> = list.iter().map(|item| &item.0).collect();
            let meta = &list.metadata;
            json!(items) == json!(body["items"].as_array().cloned().unwrap_or_default())
                && meta.resource_version == text(&body["metadata"]["resourceVersion"])
                && meta.continue_token == text(&body["metadata"]["continue"])
                && meta.remaining_item_count == body["metadata"]["remainingItemCount"].as_i64()
        }
        (Said::Json(body), Told::Metadata(meta)) => json!(meta) == kept(&body["metadata"]),
        (Said::Json(body), Told::MetadataList(all)) => {
            let items = body["items"].as_array().into_iter().flatten();
            json!(all) == items.map(|item| kept(&item["metadata"])).collect::<Value>()
        }
        (_, Told::Events(told)) => {
            let events = recorded_events(step).iter().map(|event| {
                let object = &event["object"];
                match text(&event["type"]).as_str() {
                    "BOOKMARK" => {
                        let end = object["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true";
                        json!({"type": "BOOKMARK", "at": object["metadata"]["resourceVersion"], "end": end})
                    }
                    "ERROR" => json!({"type": "ERROR", "code": object["code"], "message": object["message"]}),
                    _ => event.clone(),
                }
            });
            events.collect::<Vec<_>>() == *told
        }
        (Said::Events(events), Told::MetadataList(all)) => {
            let objects = events.iter().map(|event| match event["type"] == "BOOKMARK" {
                true => json!({}),
                false => kept(&event["object"]["metadata"]),
            });
            json!(all) == objects.collect::<Value>()
        }
        _ => false,
    };
    if same { Ok(()) } else { Err(format!("told {}", shown(&told))) }
}

/// An error that says what the server said, and answers yes to the one question about its reason.
fn refused(step: &Step, error: &Error) -> Result<(), String> {
    let Error::Api(status) = error else { return Err(format!("no answer of the server's: {error:?}")) };
    let (reason, code) = match &step.said {
        Said::Json(body) if body["kind"] == "Status" => {
            let details = |details: &Value| {
                let mut details = details.clone();
                if let Some(map) = details.as_object_mut() {
                    map.remove("retryAfterSeconds");
                }
                details
            };
            let ours = json!(status);
            for (what, ours, theirs) in [
                ("message", &ours["message"], &body["message"]),
                ("reason", &ours["reason"], &body["reason"]),
                ("code", &ours["code"], &body["code"]),
                ("details", &details(&ours["details"]), &details(&body["details"])),
            ] {
                let nothing = |value: &Value| value.is_null() || *value == json!({});
                if ours != theirs && !(nothing(ours) && nothing(theirs)) {
                    return Err(format!("{what} is {ours}"));
                }
            }
            (text(&body["reason"]), u16::try_from(body["code"].as_u64().unwrap_or_default()).unwrap_or_default())
        }
        Said::Text(said) if said.trim() != status.message && !said.trim().is_empty() => {
            return Err(format!("message is {}", status.message));
        }
        _ => (String::new(), step.code),
    };
    if status.code != code {
        return Err(format!("code is {}", status.code));
    }
    let questions = [
        ("BadRequest", error.is_bad_request()),
        ("Unauthorized", error.is_unauthorized()),
        ("Forbidden", error.is_forbidden()),
        ("NotFound", error.is_not_found()),
        ("MethodNotAllowed", error.is_method_not_allowed()),
        ("AlreadyExists", error.is_already_exists()),
        ("Conflict", error.is_conflict()),
        ("Expired", error.is_expired()),
        ("Invalid", error.is_invalid()),
        ("TooManyRequests", error.is_too_many_requests()),
        ("ServiceUnavailable", error.is_unavailable()),
        ("Timeout", error.is_timeout()),
        ("Unsent", error.is_unsent()),
        ("Lost", error.is_lost()),
    ];
    let yes: Vec<&str> = questions.iter().filter(|(_, yes)| *yes).map(|(reason, _)| *reason).collect();
    let by_code = match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "",
    };
    // The reason is what counts: an admission policy may give it another code.
    let wanted = questions.iter().map(|(word, _)| *word).find(|word| *word == reason).unwrap_or(by_code);
    if yes != [wanted] && !(wanted.is_empty() && yes.is_empty()) {
        return Err(format!("{reason:?} ({code}) is {yes:?}"));
    }
    refusal_is_read(step, error)
}

/// Who may not do what, of a refusal by the authorizer of the request itself.
fn refusal_is_read(step: &Step, error: &Error) -> Result<(), String> {
    let Some(refusal) = error.forbidden() else {
        return match error.is_forbidden() && error.to_string().contains("User \"") {
            true => Err("the refusal is not read".to_string()),
            false => Ok(()),
        };
    };
    if let Some(user) = step.identity["user"].as_str()
        && refusal.verb != "impersonate"
        && refusal.user != user
    {
        return Err(format!("refused {}, not {user}", refusal.user));
    }
    let whole = match refusal.path.as_str() {
        "" => format!(
            "cannot {} resource {:?} in API group {:?}{}",
            refusal.verb,
            refusal.resource,
            refusal.group,
            match refusal.namespace.as_str() {
                "" => " at the cluster scope".to_string(),
                namespace => format!(" in the namespace {namespace:?}"),
            }
        ),
        path => format!("cannot {} path {path:?}", refusal.verb),
    };
    let message = error.to_string().replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    if message.contains(&whole) { Ok(()) } else { Err(format!("read as {whole}")) }
}

/// Each warning of the answer was told, each time that it was given.
fn warned(step: &Step, told: &[String], times: usize) -> Result<(), String> {
    let given = step.answered.iter().filter(|(name, _)| name == "warning");
    let given = given.filter_map(|(_, text)| {
        let text = text.strip_prefix("299 ")?.split_once(' ')?.1;
        serde_json::from_str::<String>(text).ok()
    });
    let given: Vec<String> = given.collect();
    if times == 1 && given != told { Err(format!("warned of {told:?}")) } else { Ok(()) }
}

/// What the narrow metadata keeps of an object is what it has.
fn metadata_is_read(object: &Value) -> Result<(), String> {
    let meta = &object["metadata"];
    if !meta.is_object() || !object["items"].is_null() || object["kind"] == "Status" || object["kind"] == "Table" {
        return Ok(());
    }
    let ours = ObjectMeta::deserialize(meta).map_err(|why| format!("metadata: {why}"))?;
    if json!(ours) != kept(meta) {
        return Err(format!("metadata is {}", json!(ours)));
    }
    let dynamic = Dynamic(object.clone());
    if (dynamic.name(), dynamic.namespace(), dynamic.uid()) != (&ours.name, &ours.namespace, &ours.uid) {
        return Err("metadata is read in two ways".to_string());
    }
    Ok(())
}

/// What narrow metadata keeps.
fn kept(meta: &Value) -> Value {
    let mut meta = meta.clone();
    if let Some(map) = meta.as_object_mut() {
        map.remove("managedFields");
        map.remove("selfLink");
        map.retain(|_, value| !value.is_null());
    }
    meta
}

const DELETE_KEYS: [&str; 5] =
    ["gracePeriodSeconds", "propagationPolicy", "orphanDependents", "dryRun", "preconditions.uid"];

fn delete_options(step: &Step, query: &Query) -> Option<DeleteOptions> {
    match &step.body {
        // Options of the query are not read where there is a body.
        Sent::Json(body) => DeleteOptions::from_body(body).ok(),
        Sent::Nothing => DeleteOptions::parse(query).ok(),
        Sent::Text(_) => None,
    }
}

fn list_options(query: &Query) -> Option<ListOptions> {
    const KNOWN: [&str; 10] = [
        "labelSelector",
        "fieldSelector",
        "resourceVersion",
        "resourceVersionMatch",
        "limit",
        "continue",
        "timeoutSeconds",
        "allowWatchBookmarks",
        "sendInitialEvents",
        "watch",
    ];
    said(ListOptions::parse(query), query, &KNOWN).filter(|options| options.limit >= 0)
}

/// Options, if they say all that the query says.
fn said<T, E>(options: std::result::Result<T, E>, query: &Query, known: &[&str]) -> Option<T> {
    let all_known = query.0.iter().all(|(key, _)| known.contains(&key.as_str()));
    let once = query.0.iter().all(|(key, _)| query.all(key).count() == 1);
    let plain = query.get("force").is_none_or(|force| force == "true");
    options.ok().filter(|_| all_known && once && plain)
}

fn without(query: &Query, keys: &[&str]) -> Query {
    Query(query.0.iter().filter(|(key, _)| !keys.contains(&key.as_str())).cloned().collect())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

fn shown(told: &Told) -> String {
    match told {
        Told::Object(object) => object.to_string(),
        Told::List(list) => format!("{:?}", list),
        Told::Metadata(meta) => json!(meta).to_string(),
        Told::MetadataList(all) => json!(all).to_string(),
        Told::Events(events) => json!(events).to_string(),
        Told::Text(text) => text.clone(),
        Told::Nothing => "nothing".to_string(),
    }
}
