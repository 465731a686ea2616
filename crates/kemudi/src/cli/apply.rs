//! `kemudi apply`: make objects be as files say. As kubectl does it: what was applied is kept in an annotation, and the next
//! apply merges three values (last applied, wished, there).

use api::options::FieldValidation;
use clap::Args;
use kemudi_client::discovery::{Discovered, Discovery};
use kemudi_client::{Api, Client, Dynamic, Patch, WriteOptions};
use serde_json::{Value, json};

use super::files::{self, Source};
use super::output::{self, Format, compact};
use super::resolve::{Failures, of_file, singular_name};
use super::{Failure, Global, Outcome, print, three_way};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// kubectl's own name: its apply and ours take turns on the same fields.
const MANAGER: &str = "kubectl-client-side-apply";
/// What kubectl says about a conflict of managers.
const CONFLICT: &str = "\
Please review the fields above--they currently have other managers. Here
are the ways you can resolve this warning:
* If you intend to manage all of these fields, please re-run the apply
  command with the `--force-conflicts` flag.
* If you do not intend to manage all of the fields, please edit your
  manifest to remove references to the fields that should keep their
  current managers.
* You may co-own fields by updating your manifest to match the existing
  value; in this case, you'll become the manager if the other manager(s)
  stop managing the field (remove it from their configuration).
See https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts";

#[derive(Args, Debug)]
pub struct Apply {
    /// File, folder or - for stdin; may be repeated
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<String>,
    /// Let the server merge, and own the fields
    #[arg(long)]
    server_side: bool,
    /// With --server-side: take fields from other managers
    #[arg(long)]
    force_conflicts: bool,
    /// With --server-side: name of the manager
    #[arg(long, value_name = "NAME", default_value = "kubectl")]
    field_manager: String,
    /// server: let the server check it without keeping it; client: only say what would be sent
    #[arg(long, value_name = "MODE", num_args = 0..=1, default_missing_value = "client", default_value = "none")]
    dry_run: String,
    /// strict (or true), warn or ignore (or false): unknown and duplicate fields
    #[arg(long, value_name = "MODE", num_args = 0..=1, default_missing_value = "strict", default_value = "strict")]
    validate: String,
    /// json, yaml or name
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
    /// Keep metadata.managedFields
    #[arg(long)]
    show_managed_fields: bool,
}

impl Apply {
    pub async fn run(self, global: &Global) -> Outcome {
        if self.filename.is_empty() {
            return Err(
                Failure::new("must specify one of -f and -k").hint("kemudi apply -f FILE, or -f - to read stdin")
            );
        }
        let format = Format::parse(self.output.as_deref())?;
        let sources = files::read(&self.filename)?;
        if sources.is_empty() {
            return Err(Failure::new("no objects passed to apply"));
        }
        let client = global.client()?;
        let mut discovery = Discovery::fetch(&client).await?;
        let mut failures = Failures::default();
        for source in &sources {
            if discovery.of_kind(source.api_version(), source.kind()).is_none() {
                // An object of a definition that an earlier document brought.
                discovery = Discovery::fetch(&client).await?;
            }
            match self.one(&client, &discovery, source, global).await {
                Ok((found, object, done)) => self.tell(&format, &found, object, done)?,
                Err(failure) => failures.add(failure),
            }
        }
        failures.finish()
    }

    async fn one(
        &self,
        client: &Client,
        discovery: &Discovery,
        source: &Source,
        global: &Global,
    ) -> Outcome<(Discovered, Value, &'static str)> {
        let (found, api) = of_file(discovery, client, source, global.namespace.as_deref())?;
        let namespace = api_namespace(client, &found, source);
        if self.server_side {
            let (object, done) = self.server_side(&api, source, namespace).await?;
            return Ok((found, object, done));
        }
        let mut wish = source.object.clone();
        if let Some(namespace) = namespace {
            api::meta::metadata_mut(&mut wish).insert("namespace".to_string(), namespace.clone().into());
        }
        let name = api::meta::name(&wish).to_string();
        let retrieving = || retrieving(&found, source, client);
        if name.is_empty() {
            return Err(Failure::new(format!("{}: resource name may not be empty", retrieving())));
        }
        let current = api.get_opt(&name).await.map_err(|error| Failure::while_doing(&retrieving(), error))?;
        let modified = with_last_applied(&wish);
        let Some(current) = current else {
            let doing = format!("error when creating {:?}", source.file);
            if self.dry_run == "client" {
                return Ok((found, modified, "created"));
            }
            let made = api.create_with(&Dynamic(modified), &self.options()?).await;
            return Ok((found, made.map_err(|error| Failure::while_doing(&doing, error))?.0, "created"));
        };
        let before = api::meta::entry(&current, "annotations", LAST_APPLIED).map(str::to_string);
        if before.is_none() {
            eprintln!(
                "Warning: resource {}/{name} is missing the {LAST_APPLIED} annotation which is required by kubectl apply. \
                 kubectl apply should only be used on resources created declaratively by either kubectl create --save-config \
                 or kubectl apply. The missing annotation will be patched automatically.",
                found.resource.plural
            );
        }
        let original = before.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(json!({}));
        let registry = kinds::builtin();
        let kind = registry.by_kind(&found.resource.group, &found.resource.version, &found.resource.kind);
        let patch = three_way::patch(kind.map(|kind| (&*kind.schema, kind.root)), &original, &modified, &current);
        if patch == json!({}) {
            return Ok((found, current.0, "unchanged"));
        }
        if self.dry_run == "client" {
            return Ok((found, modified, "configured"));
        }
        let merge = if kind.is_some() { Patch::Strategic(&patch) } else { Patch::Merge(&patch) };
        let object = api.patch_with(&name, &merge, &self.options()?).await.map_err(|error| {
            let place =
                retrieving().replace("error when retrieving current configuration of", "error when applying patch:\n");
            Failure::while_doing(&place, error)
        })?;
        Ok((found, object.0, "configured"))
    }

    async fn server_side(
        &self,
        api: &Api<Dynamic>,
        source: &Source,
        namespace: Option<String>,
    ) -> Outcome<(Value, &'static str)> {
        let mut wish = source.object.clone();
        if let Some(namespace) = namespace {
            api::meta::metadata_mut(&mut wish).insert("namespace".to_string(), namespace.into());
        }
        let patch = Patch::Apply { manager: &self.field_manager, force: self.force_conflicts, object: &wish };
        let options = WriteOptions { field_manager: String::new(), ..self.options()? };
        match api.patch_with(api::meta::name(&wish), &patch, &options).await {
            Ok(object) => Ok((object.0, "serverside-applied")),
            Err(error) if error.is_conflict() => Err(Failure::new(format!("{error}\n{CONFLICT}"))),
            Err(error) => Err(error.into()),
        }
    }

    fn options(&self) -> Outcome<WriteOptions> {
        let field_validation = field_validation(&self.validate)?;
        let dry_run = dry_run(&self.dry_run)?;
        Ok(WriteOptions { dry_run, field_manager: MANAGER.to_string(), field_validation, force: false })
    }

    fn tell(&self, format: &Format, found: &Discovered, mut object: Value, done: &str) -> Outcome {
        let name = format!("{}/{}", singular_name(found), api::meta::name(&object));
        match format {
            Format::Table { .. } => print(format!("{name} {done}{}\n", dry_run_note(&self.dry_run))),
            Format::Name => print(format!("{name}\n")),
            format => {
                if !self.show_managed_fields {
                    output::without_managed_fields(&mut object);
                }
                print(output::object(format, &object)?)
            }
        }
    }
}

/// `--validate` in the words of kubectl.
pub fn field_validation(mode: &str) -> Outcome<FieldValidation> {
    Ok(match mode {
        "strict" | "true" => FieldValidation::Strict,
        "warn" => FieldValidation::Warn,
        "ignore" | "false" => FieldValidation::Ignore,
        other => {
            let text = format!(
                "invalid - validate option {other:?}; must be one of: strict (or true), warn, ignore (or false)"
            );
            return Err(Failure::new(text));
        }
    })
}

/// `--dry-run` in the words of kubectl; true where the server is to keep nothing.
pub fn dry_run(mode: &str) -> Outcome<bool> {
    match mode {
        "none" | "false" | "client" | "true" => Ok(false),
        "server" => Ok(true),
        other => {
            Err(Failure::new(format!("Invalid dry-run value ({other}). Must be \"none\", \"server\", or \"client\".")))
        }
    }
}

pub fn dry_run_note(mode: &str) -> &'static str {
    match mode {
        "client" | "true" => " (dry run)",
        "server" => " (server dry run)",
        _ => "",
    }
}

fn api_namespace(client: &Client, found: &Discovered, source: &Source) -> Option<String> {
    if !found.resource.namespaced {
        return None;
    }
    Some(match api::meta::namespace(&source.object) {
        "" => client.default_namespace().to_string(),
        namespace => namespace.to_string(),
    })
}

/// The object with what it says of itself as an annotation.
fn with_last_applied(wish: &Value) -> Value {
    let mut object = wish.clone();
    let metadata = api::meta::metadata_mut(&mut object);
    let annotations = metadata.entry("annotations").or_insert(json!({}));
    if !annotations.is_object() {
        *annotations = json!({});
    }
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.shift_remove(LAST_APPLIED);
    }
    let text = compact(&object) + "\n";
    object["metadata"]["annotations"][LAST_APPLIED] = text.into();
    object
}

fn retrieving(found: &Discovered, source: &Source, client: &Client) -> String {
    let resource = &found.resource;
    let (name, file) = (api::meta::name(&source.object), &source.file);
    let namespace = api_namespace(client, found, source).unwrap_or_default();
    format!(
        "error when retrieving current configuration of:\nResource: \"{}/{}, Resource={}\", GroupVersionKind: \"{}/{}, Kind={}\"\n\
         Name: {name:?}, Namespace: {namespace:?}\nfrom server for: {file:?}",
        resource.group, resource.version, resource.plural, resource.group, resource.version, resource.kind
    )
}
