//! Launches between which no thread waits may run in any order: here they do.
use amc_artifact::{Launch, Plan};

/// The plan with the launches of every stage from last to first.
pub fn reversed(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    for program in &mut plan.programs {
        let stages = program.launches.chunk_by(|_, next| !next.waits);
        let launches = stages.flat_map(|stage| {
            let turned = stage.iter().rev().enumerate();
            turned.map(|(at, launch)| Launch { waits: at == 0 && stage[0].waits, ..launch.clone() })
        });
        program.launches = launches.collect();
    }
    plan
}
