use super::*;

const TOKENS: &[i32] = &[5, 6, 7, 8, 0];
const LABELS: &[i32] = &[-100, 7, 9, -100, -100];
const POSITIONS: &[i32] = &[0, 1, 0, 1, 2];
const SEGMENTS: &[i32] = &[1, 1, 2, 2, 0];

fn sample() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ShardWriter::new(&mut bytes, 10).unwrap();
    writer.push(&Row { tokens: TOKENS, labels: LABELS, positions: POSITIONS, segments: SEGMENTS }).unwrap();
    writer.push(&Row { tokens: &[1], labels: &[2], positions: &[0], segments: &[1] }).unwrap();
    writer.finish().unwrap();
    bytes
}

fn open(bytes: &[u8]) -> Result<Shard> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(blake3::hash(bytes).to_hex().as_str());
    std::fs::write(&path, bytes)?;
    Shard::open(&path)
}

/// Changes bytes and makes the hash fit again: a file that somebody made on purpose.
fn forged(at: usize, bytes: &[u8]) -> Result<Shard> {
    let mut file = sample();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    let hashed = file.len() - HASH_BYTES;
    let hash = blake3::hash(&file[..hashed]);
    file[hashed..].copy_from_slice(hash.as_bytes());
    open(&file)
}

fn fill(shard: &Shard, rows: &[u32], sequence: usize, places: usize) -> Result<[Vec<i32>; 4]> {
    let mut columns: [Vec<i32>; 4] = std::array::from_fn(|_| vec![77; places]);
    let [tokens, labels, positions, segments] = &mut columns;
    shard.fill(rows, sequence, &mut Batch { tokens, labels, positions, segments })?;
    Ok(columns)
}

#[test]
fn rows_come_back_and_the_rest_is_padding() {
    let shard = open(&sample()).unwrap();
    let wanted = ShardSummary { rows: 2, tokens: 6, longest: 5, supervised: 3, vocabulary: 10 };
    assert_eq!(*shard.summary(), wanted);
    assert_eq!((shard.length(0), shard.supervised(0), shard.length(1), shard.supervised(1)), (5, 2, 1, 1));
    assert_eq!((shard.content(0), shard.content(1)), (4, 1));
    let [tokens, labels, positions, segments] = fill(&shard, &[1, 0], 6, 18).unwrap();
    assert_eq!(tokens, [[1, 0, 0, 0, 0, 0], [5, 6, 7, 8, 0, 0], [0; 6]].concat());
    assert_eq!(labels, [[2, -100, -100, -100, -100, -100], [-100, 7, 9, -100, -100, -100], [-100; 6]].concat());
    assert_eq!(positions, [[0; 6], [0, 1, 0, 1, 2, 0], [0; 6]].concat());
    assert_eq!(segments, [[1, 0, 0, 0, 0, 0], [1, 1, 2, 2, 0, 0], [0; 6]].concat());
}

#[test]
fn a_batch_that_does_not_fit_is_refused() {
    let shard = open(&sample()).unwrap();
    for (rows, sequence, places) in [(&[0, 0][..], 5, 9), (&[0], 4, 8), (&[2], 5, 5)] {
        assert!(fill(&shard, rows, sequence, places).is_err(), "{rows:?} {sequence} {places}");
    }
}

#[test]
fn damage_is_noticed() {
    let bytes = sample();
    assert_eq!(bytes, sample());
    for length in 0..bytes.len() {
        assert!(open(&bytes[..length]).is_err(), "cut to {length}");
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(open(&changed).is_err(), "byte {at}");
    }
}

#[test]
fn forgeries_are_refused() {
    let (index, footer) = (HEAD_BYTES + 6 * 16, sample().len() - HASH_BYTES - FOOTER_BYTES);
    let column = |column: usize, i: usize| HEAD_BYTES + (column * 5 + i) * 4;
    assert!(forged(0, b"A").is_ok());
    for (at, value, wanted) in [
        (8, 2u64, "format version 2"),
        (12, 7, "kind"),
        (column(0, 1), 10 | 7 << 32, "token 10"),
        (column(0, 1), 0xffff_ffff | 7 << 32, "token -1"),
        (column(1, 1), 10 | 9 << 32, "label 10"),
        (column(2, 1), 5, "position 5"),
        (column(3, 0), 2 | 2 << 32, "segment 2"),
        (column(3, 1), 2 << 32, "label 7 at 1, which is padding"),
        (column(3, 3), 3 << 32, "segment 3 at 4 after segment 0"),
        (index, 20, "row 0 is at byte 20"),
        (index + 8, u64::from(u32::MAX), "runs into the index"),
        (index + 8, 0, "has no tokens"),
        (index + 8, 5 | 1 << 32, "index says otherwise"),
        (footer, u64::MAX, "rows"),
        (footer, 1, "does not end where the footer begins"),
        (footer + 8, 7, "its footer says 7"),
        (footer + 16, u64::MAX, "longest row"),
        (footer + 24, 4, "its footer says 4"),
        (footer + 32, 0, "vocabulary 0"),
        (footer + 56, u64::MAX, "index of 2 rows"),
    ] {
        let error = format!("{:#}", forged(at, &value.to_le_bytes()).map(|_| at).expect_err(wanted));
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn the_writer_refuses_bad_rows() {
    let mut writer = ShardWriter::new(Vec::new(), 10).unwrap();
    for (tokens, labels, segments) in [([1, 10], [2, 2], [1, 1]), ([1, 2], [2, 2], [1, 0]), ([1, 2], [2, 2], [2, 2])] {
        assert!(
            writer.push(&Row { tokens: &tokens, labels: &labels, positions: &[0, 1], segments: &segments }).is_err()
        );
    }
    assert!(writer.finish().is_err());
}

#[test]
fn synthetic_rows_are_uniform_and_repeat() {
    let mut bytes = Vec::new();
    write_synthetic(&mut bytes, 3, 4001, 50, 9).unwrap();
    let shard = open(&bytes).unwrap();
    assert_eq!((shard.length(2), shard.supervised(2), shard.summary().tokens), (4001, 4000, 12003));
    let [tokens, labels, positions, segments] = fill(&shard, &[2, 1], 4001, 8002).unwrap();
    assert_eq!(labels[..4000], tokens[1..4001]);
    assert_eq!((labels[4000], positions[4000], segments[8001]), (IGNORED, 4000, 1));
    assert_ne!(tokens[..4001], tokens[4001..]);
    let mut counts = [0; 50];
    tokens.iter().for_each(|token| counts[*token as usize] += 1);
    assert!(counts.iter().all(|count| (110..210).contains(count)), "{counts:?}");
    assert!(write_synthetic(Vec::new(), 0, 4, 50, 9).is_err());
}
