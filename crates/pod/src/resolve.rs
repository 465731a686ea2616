//! From the words of a command line (`pods`, `deploy/web`, `-f x.yaml`) to resources and names.

use kemudi_client::discovery::{Discovered, Discovery};
use kemudi_client::{Api, Client, Dynamic, Error};
use rights::distance;

use crate::files::Source;
use crate::{Failure, Outcome};

/// One resource, and the names of it that were asked for; none means all.
#[derive(Clone, Debug)]
pub struct Asked {
    pub found: Discovered,
    pub names: Vec<String>,
}

/// `TYPE[,TYPE..] [NAME..]` or `TYPE/NAME ..`.
pub fn asked(discovery: &Discovery, words: &[String]) -> Outcome<Vec<Asked>> {
    if words.iter().any(|word| word.contains('/')) {
        let mut out: Vec<Asked> = Vec::new();
        for word in words {
            let pair =
                word.split_once('/').filter(|(kind, name)| !kind.is_empty() && !name.is_empty() && !name.contains('/'));
            let Some((kind, name)) = pair else {
                return Err(Failure::new("arguments in resource/name form must have a single resource and name"));
            };
            out.push(Asked { found: resolve(discovery, kind)?.clone(), names: vec![name.to_string()] });
        }
        return Ok(out);
    }
    let (kinds, names) = words.split_first().ok_or_else(|| Failure::new("Required resource not specified."))?;
    let mut out = Vec::new();
    for kind in kinds.split(',').filter(|kind| !kind.is_empty()) {
        let category: Vec<&Discovered> = discovery.category(kind).collect();
        match category.is_empty() {
            true => out.push(Asked { found: resolve(discovery, kind)?.clone(), names: names.to_vec() }),
            false => {
                out.extend(category.into_iter().map(|found| Asked { found: found.clone(), names: names.to_vec() }))
            }
        }
    }
    Ok(out)
}

/// The resource that a word means, with kubectl's message where there is none.
pub fn resolve<'a>(discovery: &'a Discovery, word: &str) -> Outcome<&'a Discovered> {
    discovery.find(word).ok_or_else(|| {
        let text = match word.split_once('.') {
            Some((name, group)) => format!("the server doesn't have a resource type {name:?} in group {group:?}"),
            None => format!("the server doesn't have a resource type {word:?}"),
        };
        let mut near: Vec<&str> = discovery
            .resources
            .iter()
            .filter(|found| distance(&found.resource.plural, word) <= 2 || distance(&found.singular, word) <= 2)
            .map(|found| &*found.resource.plural)
            .collect();
        near.dedup();
        match near.is_empty() {
            true => Failure::new(text).hint(format!(
                "see all groups: {0} raw /apis, the core's resources: {0} raw /api/v1",
                crate::program()
            )),
            false => Failure::new(text).hint(format!("did you mean {}?", near.join(" or "))),
        }
    })
}

/// The resource of an object from a file, and how to reach it there.
pub fn of_file(
    discovery: &Discovery,
    client: &Client,
    source: &Source,
    flag: Option<&str>,
) -> Outcome<(Discovered, Api<Dynamic>)> {
    let (version, kind, name) = (source.api_version(), source.kind(), api::meta::name(&source.object));
    let namespace = api::meta::namespace(&source.object);
    let Some(found) = discovery.of_kind(version, kind) else {
        return Err(Failure::new(format!(
            "resource mapping not found for name: {name:?} namespace: {namespace:?} from {:?}: \
             no matches for kind {kind:?} in version {version:?}\nensure CRDs are installed first",
            source.file
        )));
    };
    if let Some(flag) = flag
        && found.resource.namespaced
        && !namespace.is_empty()
        && flag != namespace
    {
        return Err(Failure::new(format!(
            "the namespace from the provided object {namespace:?} does not match the namespace {flag:?}. \
             You must pass '--namespace={namespace}' to perform this operation."
        )));
    }
    let namespace = if namespace.is_empty() { client.default_namespace() } else { namespace };
    let api = Api::namespaced_of(client.clone(), namespace, &found.resource);
    Ok((found.clone(), api))
}

/// `pod`, `deployment.apps`: how results name an object's resource.
pub fn singular_name(found: &Discovered) -> String {
    let singular = match found.singular.as_str() {
        "" => found.resource.kind.to_lowercase(),
        singular => singular.to_string(),
    };
    match &*found.resource.group {
        "" => singular,
        group => format!("{singular}.{group}"),
    }
}

/// Several objects were asked for and some failed: each is told, the code is that of the first.
#[derive(Default)]
pub struct Failures(Vec<Failure>);

impl Failures {
    pub fn add(&mut self, failure: Failure) {
        self.0.push(failure);
    }

    pub fn add_error(&mut self, doing: &str, error: Error) {
        self.add(Failure::while_doing(doing, error));
    }

    /// Tells them all on stderr.
    pub fn finish(self) -> Outcome {
        let Some(code) = self.0.first().map(|failure| failure.code) else { return Ok(()) };
        let mut told = Vec::new();
        for failure in self.0 {
            let text = failure.to_string();
            if !told.contains(&text) {
                eprint!("{text}");
                told.push(text);
            }
        }
        Err(Failure::silent(code))
    }
}
