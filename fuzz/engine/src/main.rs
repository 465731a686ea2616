//! libFuzzer on one target, which `KEMUDI_FUZZ_TARGET` names. Its arguments are libFuzzer's own.

#![no_main]

use std::sync::LazyLock;

use fuzz::Target;
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let finding = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // Where the YAML scanner knows no answer it panics, and that is caught and told as an error.
        if panic.location().is_none_or(|place| !place.file().contains("libyaml-safer")) {
            finding(panic);
        }
    }));
    let name = std::env::var("KEMUDI_FUZZ_TARGET").unwrap_or_default();
    fuzz::target(&name).unwrap_or_else(|| panic!("KEMUDI_FUZZ_TARGET is {name:?}, which is no target"))
});

fuzz_target!(|bytes: &[u8]| (TARGET.check)(bytes));
