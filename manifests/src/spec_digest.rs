//! One short name for what a plan starts: the same for the same program, however its manifest is written.
//!
//! Owns: which parts of a plan make it another program. Promises: comments, order, probes, policies, limits and the choice
//! among alike GPUs change nothing; command, image, environment, folders and mode do. Never: holds a secret's value; what
//! the runtime passes on from its own environment is left out.

use crate::launch::LaunchPlan;
use serde_json::Value;

/// Says which GPUs were free when it was planned.
const CHOSEN: [&str; 3] = [
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
];

/// Hexadecimal digits of a name.
const DIGITS: usize = 16;

impl LaunchPlan {
    /// The first 64 bits of the SHA-256 of mode and launch, in lower-case hex. [`LaunchPlan::digest`] is of a whole file, which
    /// may hold other modules and comments. Empty where a path in it is no text.
    #[must_use]
    pub fn spec_digest(&self) -> String {
        let Ok(mut plan) = self.to_kept() else {
            return String::new();
        };
        let mut launch = plan["launch"].take();
        for kind in ["native", "container"] {
            let Some(Value::Object(parts)) = launch.get_mut(kind) else {
                continue;
            };
            parts.remove("gpu_devices");
            if let Some(Value::Object(env)) = parts.get_mut("env") {
                env.retain(|name, _| !CHOSEN.contains(&name.as_str()));
            }
        }
        let text = format!("{} {launch}", self.mode.as_str());
        crate::source::digest(text.as_bytes())
            .chars()
            .take(DIGITS)
            .collect()
    }
}
