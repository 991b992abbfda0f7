//! How long a launch takes at best, and the roof that says so.
use amc_artifact::Work;
use serde_json::{Value, json};

/// What a machine can do in a second.
pub struct Rates {
    /// Whose rates these are.
    pub machine: &'static str,
    pub operations: f64,
    pub bytes: f64,
}

/// Two cores of a current server processor with AVX-512; the plan of an artifact says nothing of the machine.
pub const NOMINAL: Rates = Rates { machine: "nominal machine", operations: 200e9, bytes: 20e9 };

impl Rates {
    /// Seconds of a launch that either computes or moves bytes at full rate all the time.
    pub fn seconds(&self, work: &Work) -> f64 {
        (work.operations as f64 / self.operations).max(work.bytes as f64 / self.bytes)
    }

    pub fn json(&self) -> Value {
        json!({"machine": self.machine, "operations": self.operations, "bytes": self.bytes})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_takes_as_long_as_the_slower_of_its_two_parts() {
        let rates = Rates { machine: "", operations: 100.0, bytes: 10.0 };
        let work = |operations, bytes| Work { family: String::new(), operations, bytes };
        assert_eq!(rates.seconds(&work(300, 10)), 3.0);
        assert_eq!(rates.seconds(&work(100, 50)), 5.0);
    }
}
