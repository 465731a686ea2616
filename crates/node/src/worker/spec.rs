//! What a container's program is and what it finds: user, environment, arguments, root and mounts. Starts nothing.

use super::{Worker, make_private};
use crate::env::{self, Objects};
use crate::images::Files;
use crate::pod::{Container, VolumeDevice, VolumeMount};
use crate::provided::Provided;
use crate::sandbox::{DEFAULT_PATH, Isolation, Mount, ProcessSpec, Root, Source, Terminal, User};
use crate::{files, isolation, resources};
use futures_util::future::join_all;
use std::fs;
use std::path::{Path, PathBuf};

impl Worker {
    /// What the container's program is and what it finds.
    pub(super) async fn process_spec(
        &self,
        container: &Container,
        base: Vec<(String, String)>,
        files: &Files,
    ) -> Result<ProcessSpec, String> {
        let security = &container.security_context;
        let of_pod = &self.pod.spec.security_context;
        let uid = security.run_as_user.or(of_pod.run_as_user);
        let gid = security.run_as_group.or(of_pod.run_as_group);
        let config = match files {
            Files::Host => images::Config::default(),
            Files::Image(held) => held.image.config.clone(),
            Files::Engine(image) => image.config.clone(),
        };
        let names_user =
            config.user.split(':').next().is_some_and(|user| !user.is_empty() && user.parse::<u32>().is_err());
        if security.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
            let of_image: u32 = config.user.split(':').next().and_then(|user| user.parse().ok()).unwrap_or(0);
            let what = match uid {
                Some(0) => Some("container's runAsUser breaks non-root policy".to_owned()),
                None if names_user => Some(format!(
                    "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root",
                    config.user
                )),
                None if of_image == 0 => Some("container has runAsNonRoot and image will run as root".to_owned()),
                _ => None,
            };
            if let Some(what) = what {
                let (name, uid) = (self.full_name(), &self.pod.metadata.uid);
                return Err(format!("{what} (pod: \"{name}({uid})\", container: {})", container.name));
            }
        }
        let account = match files {
            // An engine finds out itself whom the image means.
            Files::Host | Files::Engine(_) => None,
            Files::Image(held) => {
                let wanted = uid.map_or_else(|| config.user.clone(), |uid| uid.to_string());
                Some(self.shared.config.images.account(&held.image, &wanted).map_err(|why| why.to_string())?)
            }
        };
        let mut objects = Objects::new();
        let mut wanted = env::references(container);
        wanted.sort();
        wanted.dedup();
        let found = join_all(wanted.iter().map(|(kind, name)| self.fetch(*kind, name))).await;
        for (key, data) in wanted.into_iter().zip(found) {
            if let Some(data) = data?.and_then(|known| known.data) {
                objects.insert(key, data);
            }
        }
        let namespace = &self.pod.metadata.namespace;
        let services = self.shared.services.read().of_namespace(namespace);
        let around = self.shared.surroundings(&self.pod, &self.facts.pod_ip);
        let own = env::environment(&self.pod, container, &objects, &services, &around)?;
        let of_image = account.clone().unwrap_or_default();
        let strict = of_pod.supplemental_groups_policy == "Strict";
        let user = (uid.is_some()
            || gid.is_some()
            || of_pod.fs_group.is_some()
            || !of_pod.supplemental_groups.is_empty()
            || of_image.uid != 0)
            .then(|| User {
                uid: uid.unwrap_or(of_image.uid),
                gid: gid.unwrap_or(of_image.gid),
                groups: of_pod
                    .supplemental_groups
                    .iter()
                    .chain(&of_pod.fs_group)
                    .chain(of_image.groups.iter().filter(|_| !strict))
                    .copied()
                    .collect(),
            });
        let mut all = base;
        let mut set =
            |name: &str, value: String, only_if_missing: bool| match all.iter_mut().find(|(known, _)| known == name) {
                Some(_) if only_if_missing => {}
                Some((_, known)) => *known = value,
                None => all.push((name.to_owned(), value)),
            };
        for pair in &config.env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            set(name, value.to_owned(), false);
        }
        set("PATH", DEFAULT_PATH.into(), true);
        set("HOSTNAME", files::host_name(&self.pod.spec, &self.pod.metadata.name), false);
        let home = match account {
            Some(account) if account.home.is_empty() => "/".into(),
            Some(account) => account.home,
            None => home_of(uid.unwrap_or(0)),
        };
        if !matches!(files, Files::Engine(_)) {
            set("HOME", home, true);
        }
        for (name, value) in own {
            set(&name, value, false);
        }
        let expand = |word: &String| {
            env::expand(word, |name| all.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()))
        };
        let own: Vec<String> = container.command.iter().chain(&container.args).map(expand).collect();
        let argv = match (container.command.is_empty(), container.args.is_empty()) {
            (true, true) => [config.entrypoint, config.cmd].concat(),
            (true, false) => [config.entrypoint, own].concat(),
            (false, _) => own,
        };
        if argv.is_empty() {
            return Err(format!(
                "no command specified: the image {:?} has none of its own; set command",
                container.image
            ));
        }
        let cwd = [&container.working_dir, &config.working_dir].into_iter().find(|folder| !folder.is_empty());
        let cwd = cwd.map_or_else(|| "/".into(), PathBuf::from);
        Ok(ProcessSpec {
            argv,
            cwd,
            user,
            terminal: Terminal::None,
            no_new_privileges: security.allow_privilege_escalation == Some(false),
            isolation: match files {
                // What it cannot give it says itself.
                Files::Engine(_) => Isolation::default(),
                _ => isolation::isolation(&self.pod, container)?,
            },
            oom_score: Some(resources::oom_score(&self.pod, container, self.shared.facts.memory_bytes)),
            env: all,
        })
    }

    /// Where the files of a container come from, and what it writes goes to.
    pub(super) fn root(&self, container: &Container, attempt: u32, files: &Files) -> std::io::Result<Root> {
        let read_only = container.security_context.read_only_root_filesystem == Some(true);
        let Files::Image(held) = files else { return Ok(Root::Host { read_only }) };
        // What the container wrote before its restart is not seen again.
        let scratch = self.dir.join("scratch");
        make_private(&scratch)?;
        let before = scratch.join(format!("{}_{}", container.name, attempt.wrapping_sub(1)));
        if before.exists() {
            images::remove_tree(&before)?;
        }
        let scratch = scratch.join(format!("{}_{attempt}", container.name));
        make_private(&scratch)?;
        Ok(Root::Image { layers: self.shared.config.images.layers(&held.image), scratch, read_only })
    }

    pub(super) fn mounts(
        &self,
        container: &Container,
        message: &Path,
        env: &[(String, String)],
    ) -> Result<Vec<Mount>, String> {
        let mut mounts = Vec::new();
        for mount in &container.volume_mounts {
            mounts.push(self.mount(mount, env)?);
        }
        for device in &container.volume_devices {
            mounts.push(self.device(device)?);
        }
        let taken = |path: &str, mounts: &[Mount]| mounts.iter().any(|mount| mount.target == Path::new(path));
        for name in ["hosts", "hostname", "resolv.conf"] {
            let path = format!("/etc/{name}");
            if !taken(&path, &mounts) {
                let source = Source::Host(self.dir.join(name));
                mounts.push(Mount { source, sub_path: None, target: path.into(), read_only: name != "hosts" });
            }
        }
        let path = match container.termination_message_path.as_str() {
            "" => "/dev/termination-log",
            path => path,
        };
        if !taken(path, &mounts) {
            let source = Source::Host(message.to_owned());
            mounts.push(Mount { source, sub_path: None, target: path.into(), read_only: false });
        }
        Ok(mounts)
    }

    fn device(&self, device: &VolumeDevice) -> Result<Mount, String> {
        let name = &device.name;
        let Some(Provided::Device { path, read_only }) = self.provided.get(name) else {
            return Err(format!("volume {name:?} is not a device"));
        };
        if *read_only && self.engine.is_none() {
            return Err(format!("volume {name:?} is a device, which the sandbox cannot give read-only"));
        }
        let (source, target) = (Source::Device(path.clone()), device.device_path.clone().into());
        Ok(Mount { source, sub_path: None, target, read_only: *read_only })
    }

    pub(super) fn mount(&self, mount: &VolumeMount, env: &[(String, String)]) -> Result<Mount, String> {
        let volume = self.pod.spec.volumes.iter().find(|volume| volume.name == mount.name);
        let volume = volume.ok_or_else(|| format!("volume {:?} not found", mount.name))?;
        let provided = self.provided.get(&volume.name);
        let source = match (&volume.host_path, &volume.empty_dir) {
            _ if provided.is_some() => match provided {
                Some(Provided::Image(held)) => Source::Image(self.shared.config.images.layers(&held.image)),
                Some(Provided::Claimed { path, .. }) => Source::Host(path.clone()),
                Some(Provided::Device { .. }) | None => return Err(format!("volume {:?} not found", mount.name)),
            },
            (Some(host), _) => Source::Host(host.path.clone().into()),
            (_, Some(empty)) if empty.medium == "Memory" => Source::Memory(volume.name.clone()),
            _ => Source::Host(self.volume_dir(&volume.name)),
        };
        let made = match provided {
            Some(Provided::Claimed { read_only, .. } | Provided::Device { read_only, .. }) => *read_only,
            Some(Provided::Image(_)) => true,
            None => volume.host_path.is_none() && volume.empty_dir.is_none(),
        };
        let get = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let missing = std::cell::Cell::new(None);
        let sub_path = match mount.sub_path_expr.as_str() {
            "" => mount.sub_path.clone(),
            expression => env::expand(expression, |name| {
                let value = get(name);
                if value.is_none() {
                    missing.set(Some(name.to_owned()));
                }
                value
            }),
        };
        if let Some(name) = missing.take() {
            return Err(format!("missing value for {name:?}"));
        }
        if sub_path.starts_with('/') || sub_path.split('/').any(|part| part == "..") {
            return Err(format!("subPath {sub_path:?} must be a relative path without '..'"));
        }
        Ok(Mount {
            source,
            sub_path: Some(sub_path).filter(|path| !path.is_empty()),
            target: mount.mount_path.clone().into(),
            read_only: mount.read_only || made,
        })
    }
}

/// The home directory of a user, as the machine's list of users has it.
fn home_of(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut homes = users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        (fields.nth(2)?.parse() == Ok(uid)).then(|| fields.nth(2).map(str::to_owned)).flatten()
    });
    homes.next().unwrap_or_else(|| "/".to_owned())
}
