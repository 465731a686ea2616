//! The same operator with our client library and with kube-rs, against a server of ours: how long its source is, and what it holds. A part
//! of `cargo xtask bench --client`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::{target, workspace};

/// Objects that the operators look after.
pub const OBJECTS: usize = 1000;
/// What each of them holds besides, in bytes.
const NOTE_BYTES: usize = 1000;

/// What an operator takes.
pub struct Operator {
    /// Lines of its source that are neither empty nor comments.
    pub lines: usize,
    /// Memory that is its own once all objects are as it wants them, in MB.
    pub resident_mb: f64,
}

/// Ours and theirs; the programs have been built into this folder, and the server too.
pub fn both(programs: &Path) -> Result<[Operator; 2], String> {
    let ours = measured(&programs.join("our-operator"), "crates/client/examples/operator.rs")?;
    Ok([ours, measured(&programs.join("their-operator"), "crates/testkit/beside/operators/src/bin/their-operator.rs")?])
}

fn measured(program: &Path, source: &str) -> Result<Operator, String> {
    let text = std::fs::read_to_string(workspace().join(source)).map_err(|why| format!("{source}: {why}"))?;
    let counts = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
    let lines = text.lines().filter(counts).count();
    let folder = target().join("tools/operators");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).map_err(|why| why.to_string())?;
    let kubeconfig = folder.join("admin.kubeconfig");
    let kemudi = || Command::new(target().join("debug/kemudi"));
    let mut up = kemudi();
    up.args(["up", "--store", "memory://", "--node", "none", "--listen", "127.0.0.1:0", "--data"]).arg(&folder);
    let mut server = Ended(up.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(|why| why.to_string())?);
    let mut said = BufReader::new(server.0.stdout.take().ok_or("nobody speaks")?).lines();
    said.next().ok_or("the server did not start")?.map_err(|why| why.to_string())?;

    let maps: Vec<Value> = (0..OBJECTS)
        .map(|number| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"name": format!("No. {number}"), "note": "x".repeat(NOTE_BYTES)},
                "metadata": {"name": format!("map-{number}"), "labels": {"example.com/greet": "yes"}}})
        })
        .collect();
    let file = folder.join("maps.json");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": maps});
    std::fs::write(&file, list.to_string()).map_err(|why| why.to_string())?;
    let mut apply = kemudi();
    apply.args(["apply", "-f"]).arg(&file).env("KUBECONFIG", &kubeconfig).stdout(Stdio::null());
    let applied = apply.status().map_err(|why| why.to_string())?;
    if !applied.success() {
        return Err(format!("kemudi apply ended with {applied}"));
    }
    let mut command = Command::new(program);
    command.env("KUBECONFIG", &kubeconfig).stdout(Stdio::piped());
    let mut running = Ended(command.spawn().map_err(|why| format!("{}: {why}", program.display()))?);
    let greeted = BufReader::new(running.0.stdout.take().ok_or("nobody speaks")?).lines().take(OBJECTS);
    if greeted.filter_map(Result::ok).count() < OBJECTS {
        return Err(format!("{} ended before its work was done", program.display()));
    }
    Ok(Operator { lines, resident_mb: resident_mb(running.0.id())? })
}

/// Memory of a process that no other shares with it.
fn resident_mb(process: u32) -> Result<f64, String> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).map_err(|why| format!("{path}: {why}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("the kernel does not say RssAnon")?;
    let kb = line.trim().trim_end_matches(" kB").parse::<f64>().map_err(|why| why.to_string())?;
    Ok(kb * 1024.0 / 1e6)
}

/// A process that ends with us.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
