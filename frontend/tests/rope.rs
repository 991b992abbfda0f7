//! Rotary tables against those of transformers (`tools/rope_reference.py`), for every kind of scaling.
use amc_frontend::config::Config;
use amc_frontend::model::Model;
use serde_json::Value;

/// Relative, of frequencies: a few units in the last place of f32, for `pow` is not the same everywhere.
const FREQUENCY_TOLERANCE: f64 = 5e-7;
/// Absolute, of cosines and sines at angles below 100: an angle is off by as many units in its last place.
const TABLE_TOLERANCE: f64 = 5e-5;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn tables_are_those_of_transformers() {
    let reference: Value = serde_json::from_str(include_str!("rope/reference.json")).unwrap();
    for (name, case) in reference.as_object().unwrap() {
        let config = Config::parse(&case["config"].to_string(), "config.json").unwrap();
        let model = Model::read(&config).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let rope = model.kinds[0].mixer.rope().unwrap();
        let seq = case["seq"].as_u64().unwrap() as usize;
        let (frequencies, magnitude) = rope.frequencies(seq);
        let wanted = numbers(&case["frequencies"]);
        assert_eq!(frequencies.len(), wanted.len(), "{name}");
        for (i, (found, wanted)) in frequencies.iter().zip(&wanted).enumerate() {
            let off = (*found as f64 - wanted).abs() / wanted;
            assert!(off < FREQUENCY_TOLERANCE, "{name}: frequency {i} is {found}, wanted {wanted}");
        }
        assert!((magnitude - case["magnitude"].as_f64().unwrap()).abs() < 1e-12, "{name}: magnitude {magnitude}");
        let tables = rope.tables(seq, seq);
        for (table, key) in [(&tables.cos, "cos"), (&tables.sin, "sin")] {
            assert_eq!(table.len(), seq * wanted.len());
            for (p, row) in numbers(&case["probes"]).into_iter().zip(case[key].as_array().unwrap()) {
                let found = &table[p as usize * wanted.len()..];
                for (i, (found, wanted)) in found.iter().zip(numbers(row)).enumerate() {
                    let off = (*found as f64 - wanted).abs();
                    assert!(off < TABLE_TOLERANCE, "{name}: {key} of pair {i} at {p} is {found}, wanted {wanted}");
                }
            }
        }
    }
}
