//! `kemudi whoami`: who the server takes us for.

use clap::Args;
use http::Method;
use kemudi_client::Client;
use kemudi_client::client::request;
use serde_json::{Value, json};

use crate::output::{self, Format};
use crate::table::Table;
use crate::{Global, Outcome, print};

#[derive(Args, Debug)]
pub struct Whoami {
    /// json or yaml
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
}

impl Whoami {
    pub async fn run(self, global: &Global) -> Outcome {
        let format = Format::parse(self.output.as_deref())?;
        let review = review(&global.client()?).await?;
        match format {
            Format::Table { .. } => print(table(&review["status"]["userInfo"])),
            format => print(output::answer(&format, &review)?),
        }
    }
}

/// The server's whole answer.
pub async fn review(client: &Client) -> Result<Value, kemudi_client::Error> {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    client.json(request(Method::POST, path, Some(api::codec::to_json(&body).into()))?).await
}

fn table(user: &Value) -> String {
    let mut table = Table::default();
    table.row(["ATTRIBUTE", "VALUE"]);
    for (name, field) in [("Username", "username"), ("UID", "uid")] {
        if let Some(text) = user[field].as_str().filter(|text| !text.is_empty()) {
            table.row([name, text]);
        }
    }
    if let Some(groups) = user["groups"].as_array().filter(|groups| !groups.is_empty()) {
        table.row(["Groups", &go_list(groups)]);
    }
    let mut extra: Vec<_> = user["extra"].as_object().into_iter().flatten().collect();
    extra.sort_by(|a, b| a.0.cmp(b.0));
    for (key, values) in extra {
        let values = values.as_array().map(|values| go_list(values)).unwrap_or_default();
        table.row([format!("Extra: {key}"), values]);
    }
    table.take()
}

/// `[a b c]`.
pub fn go_list(values: &[Value]) -> String {
    let texts: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
    format!("[{}]", texts.join(" "))
}
