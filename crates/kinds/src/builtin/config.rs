//! What is handed to pods: config maps, secrets, service accounts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::check::{self, Causes};
use super::read::{Read, Write};
use super::{columns, rows, warnings};
use crate::validate;
use crate::{Behaviour, Cause};

/// Bytes of all values together.
const DATA_BYTES_MAX: usize = 1024 * 1024;

pub static CONFIG_MAP: Behaviour = Behaviour {
    checks_name_again: true,
    validate_create: config_map,
    validate_update: |new, old| {
        let mut out = still(new, old, &["data", "binaryData"]);
        out.extend(config_map(new));
        out
    },
    columns: columns::CONFIG_MAP,
    row: rows::config_map,
    ..Behaviour::PLAIN
};

pub static SECRET: Behaviour = Behaviour {
    checks_name_again: true,
    warnings: warnings::secret,
    default: default_secret,
    validate_create: secret,
    validate_update: |new, old| {
        let mut out: Vec<Cause> = validate::immutable(new.at("type"), old.at("type"), "type").into_iter().collect();
        out.extend(still(new, old, &["data"]));
        out.extend(secret(new));
        out
    },
    columns: columns::SECRET,
    row: rows::secret,
    selectable: &[("type", "/type")],
    ..Behaviour::PLAIN
};

pub static SERVICE_ACCOUNT: Behaviour = Behaviour {
    checks_name_again: true,
    prepare_create: name_secrets_only,
    prepare_update: |account, _| name_secrets_only(account),
    warnings: warnings::service_account,
    columns: columns::SERVICE_ACCOUNT,
    row: rows::name_age,
    returns_deleted: true,
    ..Behaviour::PLAIN
};

/// Of the secrets of a service account nothing but their names is kept.
fn name_secrets_only(account: &mut Value) {
    for secret in account.list_mut("secrets") {
        if let Some(fields) = secret.as_object_mut() {
            fields.retain(|field, _| field == "name");
        }
    }
}

/// `stringData` is for writing only: it goes into `data` and wins there.
fn default_secret(secret: &mut Value) {
    if let Some(plain) = secret.as_object_mut().and_then(|fields| fields.shift_remove("stringData")) {
        let mut data = secret.at("data").as_object().cloned().unwrap_or_default();
        for (key, value) in plain.entries() {
            data.insert(key.clone(), STANDARD.encode(value.as_str().unwrap_or_default()).into());
        }
        if !data.is_empty() {
            secret.set("data", data);
        }
    }
    secret.set_default("type", "Opaque");
}

/// What is marked immutable stays as it is, the mark included.
fn still(new: &Value, old: &Value, fields: &[&str]) -> Causes {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    let mut out = Vec::new();
    if old.flag("immutable") {
        if !new.flag("immutable") {
            out.push(Cause::forbidden("immutable", DETAIL));
        }
        for field in fields.iter().filter(|field| new.at(field) != old.at(field)) {
            out.push(Cause::forbidden(*field, DETAIL));
        }
    }
    out
}

fn config_map(map: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let mut bytes = 0;
    for (key, value) in map.at("data").entries() {
        let path = format!("data[{key}]");
        check::text(&mut out, key, &path, validate::config_key);
        if !map.at("binaryData").key(key).is_null() {
            out.push(Cause::invalid(&path, &key.as_str().into(), "duplicate of key present in binaryData"));
        }
        bytes += value.as_str().map_or(0, str::len);
    }
    for (key, value) in map.at("binaryData").entries() {
        check::text(&mut out, key, format_args!("binaryData[{key}]"), validate::config_key);
        bytes += decoded_length(value);
    }
    if bytes > DATA_BYTES_MAX {
        out.push(Cause::too_long("[]", DATA_BYTES_MAX));
    }
    out
}

/// The bytes that a base64 text stands for.
fn decoded_length(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    text.len() / 4 * 3 - text.bytes().rev().take_while(|b| *b == b'=').count().min(text.len() / 4 * 3)
}

fn secret(secret: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let data = secret.at("data");
    let mut bytes = 0;
    for (key, value) in data.entries() {
        check::text(&mut out, key, format_args!("data[{key}]"), validate::config_key);
        bytes += decoded_length(value);
    }
    if bytes > DATA_BYTES_MAX {
        out.push(Cause::too_long("data", DATA_BYTES_MAX));
    }
    let mut need = |keys: &[&str]| {
        for key in keys.iter().filter(|key| data.key(key).is_null()) {
            out.push(Cause::required(format!("data[{key}]"), ""));
        }
    };
    match secret.text("type") {
        "kubernetes.io/service-account-token" => {
            const KEY: &str = "kubernetes.io/service-account.name";
            if secret.at("metadata.annotations").key(KEY).as_str().unwrap_or_default().is_empty() {
                out.push(Cause::required(format!("metadata.annotations[{KEY}]"), ""));
            }
        }
        "kubernetes.io/dockercfg" => {
            need(&[".dockercfg"]);
            is_json(&mut out, data, ".dockercfg");
        }
        "kubernetes.io/dockerconfigjson" => {
            need(&[".dockerconfigjson"]);
            is_json(&mut out, data, ".dockerconfigjson");
        }
        "kubernetes.io/basic-auth" if data.key("username").is_null() && data.key("password").is_null() => {
            need(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" if data.key("ssh-privatekey").as_str().unwrap_or_default().is_empty() => {
            out.push(Cause::required("data[ssh-privatekey]", ""));
        }
        "kubernetes.io/tls" => need(&["tls.crt", "tls.key"]),
        _ => {}
    }
    out
}

fn is_json(out: &mut Causes, data: &Value, key: &str) {
    let Some(text) = data.key(key).as_str() else { return };
    let bytes = STANDARD.decode(text).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let wrong = match crate::decode::syntax_error(&bytes) {
        Some(wrong) => wrong,
        None => match serde_json::from_str::<Value>(&text) {
            Ok(Value::Object(_) | Value::Null) | Err(_) => return,
            Ok(other) => {
                let what = match other {
                    Value::Array(_) => "array",
                    Value::String(_) => "string",
                    Value::Bool(_) => "bool",
                    _ => "number",
                };
                format!("json: cannot unmarshal {what} into Go value of type map[string]interface {{}}")
            }
        },
    };
    out.push(Cause::invalid(format!("data[{key}]"), &"<secret contents redacted>".into(), &wrong));
}
