//! How much a pod's volumes on disk hold, against their limits. Reads; ends nothing.

use crate::pod::{Pod, Volume};
use kinds::quantity::Quantity;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Entries that are counted of one volume; what is beyond them is not looked at.
const ENTRIES_MAX: usize = 1 << 20;
const BLOCK_BYTES: u64 = 512;

/// Whether a pod has a volume whose use is to be looked at.
pub fn is_limited(pod: &Pod) -> bool {
    pod.spec.volumes.iter().any(|volume| limit(volume).is_some())
}

/// The first volume that holds more than its limit, in the kubelet's words. `folder` is where the volumes are, by name.
/// Reads all of them from disk.
pub fn exceeded(pod: &Pod, folder: &Path) -> Option<String> {
    pod.spec.volumes.iter().find_map(|volume| {
        let (limit, text) = limit(volume)?;
        let name = &volume.name;
        (bytes(&folder.join(name)) > limit)
            .then(|| format!("Usage of EmptyDir volume {name:?} exceeds the limit {text:?}. "))
    })
}

/// The limit of a volume on disk: one in memory holds no more than that anyway.
fn limit(volume: &Volume) -> Option<(u64, &str)> {
    let source = volume.empty_dir.as_ref().filter(|source| source.medium != "Memory")?;
    let bytes = u64::try_from(Quantity::parse(&source.size_limit).ok()?.value()).ok()?;
    (bytes > 0).then_some((bytes, source.size_limit.as_str()))
}

/// What a folder takes on disk, each file once. Links are not followed, and what goes meanwhile counts nothing.
fn bytes(folder: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut folders = vec![folder.to_owned()];
    let (mut total, mut entries) = (0_u64, 0);
    while let Some(folder) = folders.pop() {
        let Ok(list) = fs::read_dir(&folder) else { continue };
        for entry in list.flatten() {
            entries += 1;
            if entries > ENTRIES_MAX {
                return total;
            }
            let Ok(found) = entry.metadata() else { continue };
            if found.is_dir() {
                folders.push(entry.path());
            } else if found.nlink() > 1 && !seen.insert((found.dev(), found.ino())) {
                continue;
            }
            total = total.saturating_add(found.blocks().saturating_mul(BLOCK_BYTES));
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_of_volumes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("work/deep")).unwrap();
        fs::write(dir.path().join("work/deep/file"), vec![1; 300 << 10]).unwrap();
        fs::hard_link(dir.path().join("work/deep/file"), dir.path().join("work/same")).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("work/link")).unwrap();
        let check = |source: serde_json::Value, expected: Option<&str>| {
            let volumes = json!([{"name": "work", "emptyDir": source}]);
            let pod: Pod = serde_json::from_value(json!({"spec": {"volumes": volumes}})).unwrap();
            assert_eq!(exceeded(&pod, dir.path()).as_deref(), expected);
        };
        check(json!({}), None);
        check(json!({"sizeLimit": "400Ki"}), None);
        check(json!({"sizeLimit": "1Ki", "medium": "Memory"}), None);
        check(json!({"sizeLimit": "200Ki"}), Some("Usage of EmptyDir volume \"work\" exceeds the limit \"200Ki\". "));
    }
}
