//! What a run is forecast to take, from the rates of the machine and from what its batches hold.
use crate::data::Buffers;
use crate::programs::BatchProgram;
use amc_artifact::{Forecast, Load, Plan, Rates};
use std::collections::BTreeMap;

/// The forecast of a run, which knows its batches as they come.
pub(super) struct Expected {
    rates: Option<Rates>,
    threads: usize,
    /// What the batches held so far, by program.
    loads: BTreeMap<String, Load>,
}

impl Expected {
    /// Without rates nothing is forecast.
    pub fn new(rates: Option<Rates>, threads: usize) -> Expected {
        Expected { rates, threads, loads: BTreeMap::new() }
    }

    /// Whether the rates are of this machine.
    pub fn calibrated(&self) -> bool {
        self.rates.as_ref().is_some_and(Rates::measured)
    }

    /// Seconds of a run of a program with the batch in the buffers.
    pub fn batch(&mut self, plan: &Plan, program: &BatchProgram, buffers: &Buffers) -> f64 {
        let places = program.rows * program.sequence;
        let (labels, segments) = (&buffers.labels[..places], &buffers.segments[..places]);
        let name = &plan.programs[program.index()].name;
        self.loads.entry(name.clone()).or_default().add(labels, segments, program.sequence);
        let mut load = Load::default();
        load.add(labels, segments, program.sequence);
        self.seconds(plan, program.index(), &load)
    }

    /// Seconds of a run of a program whose work is always the same.
    pub fn always(&self, plan: &Plan, index: usize) -> f64 {
        self.seconds(plan, index, &Load::default())
    }

    fn seconds(&self, plan: &Plan, index: usize, load: &Load) -> f64 {
        let of = |rates| Forecast::of_program(plan, &plan.programs[index], rates, self.threads, load).1;
        // Steps are compared with nothing but what was measured here.
        self.rates.as_ref().filter(|rates| rates.measured()).map_or(0.0, of)
    }

    /// What the batches so far held, by program.
    pub fn loads(&self) -> &BTreeMap<String, Load> {
        &self.loads
    }

    /// Forgets the batches so far.
    pub fn forget(&mut self) {
        self.loads.clear();
    }

    /// The forecast of all programs, with batches like those so far; `None` without rates.
    pub fn forecast(&self, plan: &Plan) -> Option<Forecast> {
        self.rates.as_ref().map(|rates| Forecast::of(plan, rates, self.threads, &self.loads))
    }
}
