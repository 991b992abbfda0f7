//! A device that obeys and does nothing, so that plans of any size run anywhere.
use super::{Device, Profile};
use crate::host::peak_memory;
use anyhow::Result;

/// Memory reads as zeros, whatever was written.
pub struct NullDevice {
    programs: usize,
    arena_bytes: u64,
    /// Launches obeyed so far.
    pub launched: u64,
}

impl NullDevice {
    /// For a plan with that many programs.
    pub fn new(plan: &amc_artifact::Plan) -> NullDevice {
        NullDevice { programs: plan.programs.len(), arena_bytes: plan.arena_bytes, launched: 0 }
    }

    fn check(&self, offset: u64, bytes: usize) {
        let end = offset.checked_add(bytes as u64);
        assert!(end.is_some_and(|end| end <= self.arena_bytes), "{bytes} bytes at {offset} are outside the arena");
    }
}

impl Device for NullDevice {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check(offset, bytes.len());
        Ok(())
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.check(offset, bytes.len());
        bytes.fill(0);
        Ok(())
    }

    fn remembers(&self) -> bool {
        false
    }

    fn launch(&mut self, program: usize) -> Result<()> {
        assert!(program < self.programs, "program {program} of {}", self.programs);
        self.launched += 1;
        Ok(())
    }

    fn start_profile(&mut self) -> Result<()> {
        Ok(())
    }

    fn profile(&self) -> Option<&Profile> {
        None
    }

    fn describe(&self) -> String {
        "null".into()
    }

    fn peak_memory(&self) -> u64 {
        peak_memory()
    }
}
